"""What a manifest says of each engine in its bundle: what it was built from and for, and when it must be refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.bundle.fields import Fields, mistyped, safe_name

#: The directory of the bundle below which each engine has a directory of its own.
ENGINES = "engines"


@dataclass(frozen=True)
class InputRange:
    """The smallest, the usual and the largest shape of an input, or of an input that decides shapes its values."""

    name: str
    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


@dataclass(frozen=True)
class ShapeProfile:
    """An optimisation profile of an engine; its index in the engine is its place in the list.

    Attributes:
        name: "prefill" or "decode".
        shapes: of each input with a dynamic axis.
        values: of each input whose values decide shapes.
    """

    name: str
    shapes: tuple[InputRange, ...]
    values: tuple[InputRange, ...]


@dataclass(frozen=True)
class PluginUse:
    """A plugin that an engine calls.

    Attributes:
        name, version, namespace: what TensorRT's registry finds it by.
        nodes: how many layers of the engine are it.
        library: the file of the bundle that holds it.
        sha256: of that file, 64 hex digits.
    """

    name: str
    version: str
    namespace: str
    nodes: int
    library: str
    sha256: str


@dataclass(frozen=True)
class DraftEngine:
    """The engine of a bundle's draft graph, which was built with that of its decoder and for the same GPUs.

    Attributes:
        file: the engine, relative to the bundle.
        profiles, graph_sha256, cache_key, engine_bytes, weights_bytes, activation_bytes, build_seconds,
            build_peak_memory_bytes: as of `EngineEntry`.
    """

    file: str
    profiles: tuple[ShapeProfile, ...]
    graph_sha256: str
    cache_key: str
    engine_bytes: int
    weights_bytes: int | None
    activation_bytes: int | None
    build_seconds: float
    build_peak_memory_bytes: int | None


@dataclass(frozen=True)
class EngineEntry:
    """One engine.

    Attributes:
        name: "sm89-fp16", the directory below `engines/`; file: the engine, relative to the bundle.
        backend: "tensorrt-rtx" or "tensorrt"; backend_version: the exact version that built it ("1.7.1.116").
        compute_capabilities: the GPUs it was built for, without the dot ("89").
        device: the device profile it was built for, "" where only compute capabilities were named.
        cuda: the CUDA version that the backend was made for ("13"); its driver must know that one.
        dtype: of the bundle's weights.
        max_batch_size, max_input_len, max_kv_cache_capacity: limits that it serves: sequences, new tokens at once,
            tokens in all.
        profiles: its optimisation profiles, in the engine's order.
        plugins: what it calls of plugin libraries.
        options: how it was built beside that ("weight_streaming").
        graph_sha256: of the ONNX file and its data files, see `edgekit.build.cache_key`.
        cache_key: of everything that decides what it is, 64 hex digits.
        engine_bytes, weights_bytes, activation_bytes: of the file, and memory that TensorRT says it will need; None
            where it did not say.
        build_seconds, build_peak_memory_bytes: what the build took (the memory of its process).
        draft: the engine of the draft graph beside it; None where the bundle has no draft heads.
    """

    name: str
    file: str
    backend: str
    backend_version: str
    compute_capabilities: tuple[str, ...]
    device: str
    cuda: str
    dtype: str
    max_batch_size: int
    max_input_len: int
    max_kv_cache_capacity: int
    profiles: tuple[ShapeProfile, ...]
    plugins: tuple[PluginUse, ...]
    options: tuple[str, ...]
    graph_sha256: str
    cache_key: str
    engine_bytes: int
    weights_bytes: int | None
    activation_bytes: int | None
    build_seconds: float
    build_peak_memory_bytes: int | None
    draft: DraftEngine | None = None

    @property
    def engine_files(self) -> tuple[str, ...]:
        """Its engines, relative to the bundle."""
        return (self.file,) if self.draft is None else (self.file, self.draft.file)

    @property
    def files(self) -> tuple[str, ...]:
        """All that it is loaded from: engines and plugin libraries, each once."""
        return tuple(dict.fromkeys((*self.engine_files, *(plugin.library for plugin in self.plugins))))

    @property
    def directory(self) -> str:
        """Its directory, relative to the bundle."""
        return f"{ENGINES}/{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return asdict(self)


def engine_entries(raw: Fields) -> tuple[EngineEntry, ...]:
    """The engines of a manifest; none where it says nothing. Raises BundleError naming the field."""
    if "engines" not in raw.values:  # as in bundles made before there were engines
        return ()
    return tuple(_entry(Fields(item, f"engines[{i}].")) for i, item in enumerate(raw.sequence("engines")))


def _entry(fields: Fields) -> EngineEntry:
    return EngineEntry(
        name=safe_name(fields.text("name")),
        file=safe_name(fields.text("file")),
        backend=fields.text("backend"),
        backend_version=fields.text("backend_version"),
        compute_capabilities=fields.strings("compute_capabilities"),
        device=fields.any_text("device"),
        cuda=fields.text("cuda"),
        dtype=fields.text("dtype"),
        max_batch_size=fields.integer("max_batch_size", least=1),
        max_input_len=fields.integer("max_input_len", least=1),
        max_kv_cache_capacity=fields.integer("max_kv_cache_capacity", least=1),
        profiles=tuple(_profile(each) for each in fields.objects("profiles")),
        plugins=tuple(_plugin(each) for each in fields.objects("plugins")),
        options=fields.strings("options"),
        graph_sha256=fields.digest("graph_sha256"),
        cache_key=fields.digest("cache_key"),
        engine_bytes=fields.integer("engine_bytes", least=1),
        weights_bytes=fields.optional_integer("weights_bytes"),
        activation_bytes=fields.optional_integer("activation_bytes"),
        build_seconds=fields.number("build_seconds"),
        build_peak_memory_bytes=fields.optional_integer("build_peak_memory_bytes"),
        draft=_draft(fields.fields("draft")) if fields.values.get("draft") is not None else None,
    )


def _draft(fields: Fields) -> DraftEngine:
    return DraftEngine(
        file=safe_name(fields.text("file")),
        profiles=tuple(_profile(each) for each in fields.objects("profiles")),
        graph_sha256=fields.digest("graph_sha256"),
        cache_key=fields.digest("cache_key"),
        engine_bytes=fields.integer("engine_bytes", least=1),
        weights_bytes=fields.optional_integer("weights_bytes"),
        activation_bytes=fields.optional_integer("activation_bytes"),
        build_seconds=fields.number("build_seconds"),
        build_peak_memory_bytes=fields.optional_integer("build_peak_memory_bytes"),
    )


def _profile(fields: Fields) -> ShapeProfile:
    shapes = tuple(_range(each) for each in fields.objects("shapes"))
    return ShapeProfile(fields.text("name"), shapes, tuple(_range(each) for each in fields.objects("values")))


def _range(fields: Fields) -> InputRange:
    smallest, usual, largest = (fields.integers(name) for name in ("smallest", "usual", "largest"))
    if not len(smallest) == len(usual) == len(largest):
        raise mistyped(f"{fields.prefix}largest", f"as long as smallest, {len(smallest)}", list(largest))
    return InputRange(fields.text("name"), smallest, usual, largest)


def _plugin(fields: Fields) -> PluginUse:
    return PluginUse(
        name=fields.text("name"),
        version=fields.text("version"),
        namespace=fields.any_text("namespace"),
        nodes=fields.integer("nodes", least=1),
        library=safe_name(fields.text("library")),
        sha256=fields.digest("sha256"),
    )
