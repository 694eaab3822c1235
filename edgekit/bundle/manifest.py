"""The manifest, schema 1: typed views over manifest.json.

`Manifest.raw` is the whole document; unknown extra fields are kept there and ignored, missing or mistyped ones are
refused with their path ("model.layers").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edgekit import contract
from edgekit.errors import BundleError

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
EXPORT_AGAIN = "make the bundle again: edgekit export CHECKPOINT -o BUNDLE --dtype DTYPE"


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: its path relative to the bundle, size and SHA-256 (64 hex digits)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelInfo:
    """The shape of the decoder; `max_context` is the checkpoint's limit in tokens."""

    name: str
    model_type: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    hidden_size: int
    max_context: int


@dataclass(frozen=True)
class CacheInfo:
    """How the key/value cache is bound: `kind` "shared" (in place) or "concat"; the capacity limit is in tokens."""

    kind: str
    dtype: str
    capacity_limit: int
    bytes_per_token: int


@dataclass(frozen=True)
class GraphInfo:
    """The ONNX file, its external data files, its inputs and outputs, and the internal tensors that can be tapped."""

    file: str
    data: tuple[str, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    taps: tuple[str, ...]


@dataclass(frozen=True)
class OperatorUse:
    """A custom operator of the graph: its name in domain "edgekit", its version, and how many nodes use it."""

    name: str
    version: int
    nodes: int


@dataclass(frozen=True)
class Tokens:
    """Ids of the special tokens; generation stops at any of `eos`."""

    bos: int | None
    eos: tuple[int, ...]
    pad: int | None
    add_bos: bool


@dataclass(frozen=True)
class Manifest:
    """What a bundle contains and how it came about."""

    schema: int
    edgekit: str
    model: ModelInfo
    form: str
    dtype: str
    cache: CacheInfo
    graph: GraphInfo
    tokens: Tokens
    files: tuple[FileEntry, ...]
    operators: tuple[OperatorUse, ...]
    raw: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Size of all files together, without the manifest."""
        return sum(entry.bytes for entry in self.files)

    @classmethod
    def from_dict(cls, document: object) -> Manifest:
        """Check a parsed manifest.json and give its typed view. Raises BundleError naming the field."""
        raw = _Fields(document, "")
        schema = raw.integer("schema")
        if schema != SCHEMA:
            _refuse_schema(schema, raw.values.get("edgekit"))
        model, cache, graph, tokens = (raw.fields(name) for name in ("model", "cache", "graph", "tokens"))
        files = tuple(
            FileEntry(safe_name(entry.text("name")), entry.integer("bytes"), entry.digest("sha256"))
            for entry in (_Fields(item, f"files[{i}].") for i, item in enumerate(raw.sequence("files")))
        )
        manifest = cls(
            schema=schema,
            edgekit=raw.text("edgekit"),
            model=ModelInfo(
                name=model.text("name"),
                model_type=model.text("model_type"),
                **{key: model.integer(key, least=1) for key in MODEL_SIZES},
            ),
            form=raw.one_of("form", contract.FORMS),
            dtype=raw.text("dtype"),
            cache=CacheInfo(
                kind=cache.one_of("kind", (contract.CACHE_SHARED, contract.CACHE_CONCAT)),
                dtype=cache.text("dtype"),
                capacity_limit=cache.integer("capacity_limit", least=1),
                bytes_per_token=cache.integer("bytes_per_token"),
            ),
            graph=GraphInfo(
                file=safe_name(graph.text("file")),
                data=tuple(safe_name(name) for name in graph.strings("data")),
                inputs=tuple(graph.sequence("inputs")),
                outputs=tuple(graph.sequence("outputs")),
                taps=graph.strings("taps"),
            ),
            tokens=Tokens(
                bos=tokens.optional_integer("bos"),
                eos=tokens.integers("eos"),
                pad=tokens.optional_integer("pad"),
                add_bos=tokens.boolean("add_bos"),
            ),
            files=files,
            # Absent from bundles made before there were such operators.
            operators=tuple(
                OperatorUse(entry.text("name"), entry.integer("version", least=1), entry.integer("nodes", least=1))
                for entry in (
                    _Fields(item, f"operators[{i}].")
                    for i, item in enumerate(raw.sequence("operators") if "operators" in raw.values else [])
                )
            ),
            raw=raw.values,
        )
        _check_listing(manifest)
        return manifest


MODEL_SIZES = ("layers", "heads", "kv_heads", "head_dim", "vocab_size", "hidden_size", "max_context")


def safe_name(name: str) -> str:
    """`name` if it is a plain path below the bundle. Raises BundleError for anything that could lead elsewhere."""
    path = PurePosixPath(name)
    odd = not name or name != str(path) or "\\" in name or ":" in name or not name.isprintable()
    if odd or path.is_absolute() or not path.parts or any(part in (".", "..") for part in path.parts):
        raise BundleError(
            "a manifest may only name files below its bundle",
            f"it names {name!r}",
            "do not use this bundle: it was not written by edgekit",
        )
    return name


def _check_listing(manifest: Manifest) -> None:
    names = [entry.name for entry in manifest.files]
    if len(set(names)) != len(names) or MANIFEST_NAME in names:
        twice = next((name for name in names if names.count(name) > 1 or name == MANIFEST_NAME), "")
        raise BundleError("a manifest lists each file once, and not itself", f"it lists {twice}", EXPORT_AGAIN)
    for name in (manifest.graph.file, *manifest.graph.data):
        if name not in names:
            raise BundleError("a manifest lists every file of its graph", f"{name} is not listed", EXPORT_AGAIN)


def _refuse_schema(found: int, written_by: object) -> None:
    origin = f"this bundle has schema {found}, written by edgekit {written_by or '(unknown)'}"
    if found > SCHEMA:
        raise BundleError(
            f"this edgekit reads bundles of schema {SCHEMA}",
            origin,
            "update edgekit, or make the bundle with this version of edgekit",
        )
    raise BundleError(f"this edgekit reads bundles of schema {SCHEMA} only", origin, EXPORT_AGAIN)


class _Fields:
    """Typed access to one JSON object; errors name the field by its path."""

    def __init__(self, value: object, prefix: str) -> None:
        if not isinstance(value, dict):
            raise _mistyped(prefix.rstrip(".") or "the document", "an object", value)
        self.values: dict[str, Any] = value
        self.prefix = prefix

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise BundleError(
                f"{MANIFEST_NAME} has every field of schema {SCHEMA}", f"{self.prefix}{name} is missing", EXPORT_AGAIN
            )
        return self.values[name]

    def fields(self, name: str) -> _Fields:
        return _Fields(self._get(name), f"{self.prefix}{name}.")

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str) or not value:
            raise _mistyped(self.prefix + name, "a text", value)
        return value

    def digest(self, name: str) -> str:
        value = self.text(name)
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise _mistyped(self.prefix + name, "64 hexadecimal digits", value)
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in choices:
            raise _mistyped(self.prefix + name, f"one of {', '.join(choices)}", value)
        return value

    def integer(self, name: str, least: int = 0) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _mistyped(self.prefix + name, f"an integer of {least} or more", value)
        return value

    def optional_integer(self, name: str) -> int | None:
        return None if self._get(name) is None else self.integer(name)

    def boolean(self, name: str) -> bool:
        value = self._get(name)
        if not isinstance(value, bool):
            raise _mistyped(self.prefix + name, "true or false", value)
        return value

    def sequence(self, name: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise _mistyped(self.prefix + name, "a list", value)
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        values = self.sequence(name)
        if not all(isinstance(value, str) and value for value in values):
            raise _mistyped(self.prefix + name, "a list of texts", values)
        return tuple(values)

    def integers(self, name: str) -> tuple[int, ...]:
        values = self.sequence(name)
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise _mistyped(self.prefix + name, "a list of token ids", values)
        return tuple(values)


def _mistyped(field: str, expected: str, found: object) -> BundleError:
    shown = repr(found)
    return BundleError(
        f"{MANIFEST_NAME}: {field} must be {expected}",
        f"it is {shown if len(shown) <= 60 else shown[:60] + '...'}",
        EXPORT_AGAIN,
    )
