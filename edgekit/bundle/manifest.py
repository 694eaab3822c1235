"""The manifest, schema 1: typed views over manifest.json.

`Manifest.raw` is the whole document; unknown extra fields are kept there and ignored, missing or mistyped ones are
refused with their path ("model.layers").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit import contract
from edgekit.bundle.draft_entry import DraftInfo, draft_entry
from edgekit.bundle.engine_entry import EngineEntry, engine_entries
from edgekit.bundle.fields import EXPORT_AGAIN, MANIFEST_NAME, SCHEMA, Fields, safe_name
from edgekit.errors import BundleError

__all__ = [
    "EXPORT_AGAIN",
    "MANIFEST_NAME",
    "SCHEMA",
    "CacheInfo",
    "DraftInfo",
    "EncoderInfo",
    "EngineEntry",
    "FileEntry",
    "GraphInfo",
    "Manifest",
    "ModelInfo",
    "OperatorUse",
    "Tokens",
    "safe_name",
]


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: its path relative to the bundle, size and SHA-256 (64 hex digits)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelInfo:
    """The shape of the model; `max_context` is the checkpoint's limit in tokens."""

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
    """How the key/value cache is bound: `kind` "shared" (in place) or "concat"; the capacity limit is in tokens.

    An encoder has none (`kind` "none", no bytes); the limit is then the longest text.
    """

    kind: str
    dtype: str
    capacity_limit: int
    bytes_per_token: int


@dataclass(frozen=True)
class EncoderInfo:
    """How an encoder makes one vector of a text.

    Attributes:
        pooling: one of `edgekit.contract.POOLINGS`.
        normalize: whether vectors have length 1.
        dimensions: of a vector.
        max_tokens: what longer texts are cut to, the special tokens included.
    """

    pooling: str
    normalize: bool
    dimensions: int
    max_tokens: int


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
    """What a bundle contains and how it came about.

    `encoder` is there where `kind` is that of an encoder; `draft` is None where there are no draft heads, which only a
    decoder has.
    """

    schema: int
    edgekit: str
    kind: str
    encoder: EncoderInfo | None
    model: ModelInfo
    form: str
    dtype: str
    cache: CacheInfo
    graph: GraphInfo
    tokens: Tokens
    files: tuple[FileEntry, ...]
    operators: tuple[OperatorUse, ...]
    engines: tuple[EngineEntry, ...]
    draft: DraftInfo | None
    raw: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Size of all files together, without the manifest."""
        return sum(entry.bytes for entry in self.files)

    @classmethod
    def from_dict(cls, document: object) -> Manifest:
        """Check a parsed manifest.json and give its typed view. Raises BundleError naming the field."""
        raw = Fields(document, "")
        schema = raw.integer("schema")
        if schema != SCHEMA:
            _refuse_schema(schema, raw.values.get("edgekit"))
        # Absent from bundles of decoders.
        kind = raw.one_of("kind", contract.KINDS) if "kind" in raw.values else contract.KIND_DECODER
        model, cache, graph, tokens = (raw.fields(name) for name in ("model", "cache", "graph", "tokens"))
        files = tuple(
            FileEntry(safe_name(entry.text("name")), entry.integer("bytes"), entry.digest("sha256"))
            for entry in (Fields(item, f"files[{i}].") for i, item in enumerate(raw.sequence("files")))
        )
        manifest = cls(
            schema=schema,
            edgekit=raw.text("edgekit"),
            kind=kind,
            encoder=_encoder(raw.fields("encoder")) if kind == contract.KIND_ENCODER else None,
            model=ModelInfo(
                name=model.text("name"),
                model_type=model.text("model_type"),
                **{key: model.integer(key, least=1) for key in MODEL_SIZES},
            ),
            form=raw.one_of("form", contract.FORMS),
            dtype=raw.text("dtype"),
            cache=CacheInfo(
                kind=cache.one_of("kind", _CACHES[kind]),
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
                eos=tokens.integers("eos", "token ids"),
                # An encoder fills batches with it.
                pad=tokens.integer("pad") if kind == contract.KIND_ENCODER else tokens.optional_integer("pad"),
                add_bos=tokens.boolean("add_bos"),
            ),
            files=files,
            # Absent from bundles made before there were such operators.
            operators=tuple(
                OperatorUse(entry.text("name"), entry.integer("version", least=1), entry.integer("nodes", least=1))
                for entry in (
                    Fields(item, f"operators[{i}].")
                    for i, item in enumerate(raw.sequence("operators") if "operators" in raw.values else [])
                )
            ),
            engines=engine_entries(raw),
            draft=draft_entry(raw) if kind == contract.KIND_DECODER else None,
            raw=raw.values,
        )
        _check_listing(manifest)
        return manifest


_CACHES = {
    contract.KIND_DECODER: (contract.CACHE_SHARED, contract.CACHE_CONCAT),
    contract.KIND_ENCODER: (contract.CACHE_NONE,),
}
MODEL_SIZES = ("layers", "heads", "kv_heads", "head_dim", "vocab_size", "hidden_size", "max_context")


def _encoder(fields: Fields) -> EncoderInfo:
    return EncoderInfo(
        pooling=fields.one_of("pooling", contract.POOLINGS),
        normalize=fields.boolean("normalize"),
        dimensions=fields.integer("dimensions", least=1),
        max_tokens=fields.integer("max_tokens", least=1),
    )


def _check_listing(manifest: Manifest) -> None:
    names = [entry.name for entry in manifest.files]
    if len(set(names)) != len(names) or MANIFEST_NAME in names:
        twice = next((name for name in names if names.count(name) > 1 or name == MANIFEST_NAME), "")
        raise BundleError("a manifest lists each file once, and not itself", f"it lists {twice}", EXPORT_AGAIN)
    for name in (manifest.graph.file, *manifest.graph.data):
        if name not in names:
            raise BundleError("a manifest lists every file of its graph", f"{name} is not listed", EXPORT_AGAIN)
    for name in manifest.draft.files if manifest.draft is not None else ():
        if name not in names:
            raise BundleError("a manifest lists every file of its draft heads", f"{name} is not listed", EXPORT_AGAIN)
    for engine in manifest.engines:
        for name in engine.files:
            if name not in names:
                raise BundleError(
                    "a manifest lists every file of its engines",
                    f"{name} of engine {engine.name} is not listed",
                    "build the engine again: edgekit build BUNDLE --device DEVICE",
                )


def _refuse_schema(found: int, written_by: object) -> None:
    origin = f"this bundle has schema {found}, written by edgekit {written_by or '(unknown)'}"
    if found > SCHEMA:
        raise BundleError(
            f"this edgekit reads bundles of schema {SCHEMA}",
            origin,
            "update edgekit, or make the bundle with this version of edgekit",
        )
    raise BundleError(f"this edgekit reads bundles of schema {SCHEMA} only", origin, EXPORT_AGAIN)
