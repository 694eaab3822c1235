"""The engines of a bundle that this machine can run, opened as sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.errors import BundleError, EdgekitError, SessionError
from edgekit.runtime.drafting.trt_draft_session import TrtDraftSession
from edgekit.runtime.engine_compatibility import RegisteredPlugin, check_engine_files, check_plugins
from edgekit.runtime.trt_choice import chosen_engine
from edgekit.runtime.trt_decoder_engine import DecoderEngine
from edgekit.runtime.trt_engine import TrtEngine, open_engine
from edgekit.runtime.trt_session import TrtSession

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, EngineEntry


def open_session(
    bundle: Bundle, *, threads: int | None = None, capacity: int | None = None, operators: str = "auto"
) -> TrtSession:
    """A session over the newest engine of the bundle that this machine can run.

    Args:
        threads: of the CPU; decoding with TensorRT uses none to speak of.
        operators: "auto" or "native": in an engine, custom operators are plugins.

    Raises:
        SessionError: TensorRT, the CUDA runtime or a library is missing; the context is too long for the engines; or
            `operators` asks for what an engine does not have.
        BundleError: the bundle has no engine, none for this machine, or a damaged one: each with its reason.
        DoesNotFit: memory ran out.
    """
    if operators == "functions":
        raise SessionError(
            "in an engine, custom operators are what they were when it was built",
            "standard operators were asked for",
            "leave --operators out, or choose --backend cpu",
        )
    chosen = chosen_engine(bundle, lambda entry: _check_capacity(entry, capacity, bundle))
    entry, trt, cuda = chosen
    plugins = list(dict.fromkeys(plugin.library for plugin in entry.plugins))
    # A draft engine beside it is read when that is opened.
    check_engine_files(bundle, entry, [entry.file, *plugins])
    engine = open_engine(DecoderEngine, trt, bundle.file(entry.file), [bundle.file(name) for name in plugins])
    cache = bundle.manifest.cache
    try:
        check_plugins(entry, _registered(engine.runtime), bundle.path)
        return TrtSession(
            engine,
            cuda,
            cache_kind=cache.kind,
            capacity_limit=min(cache.capacity_limit, entry.max_kv_cache_capacity),
            capacity=capacity,
            mask_of_slots=_mask_of_slots(bundle),
            description=chosen.description(),
        )
    except BaseException:
        engine.close()
        raise


def open_draft_session(bundle: Bundle, vocabulary: npt.NDArray[np.int64]) -> TrtDraftSession:
    """A draft session over the newest draft engine of the bundle that this machine can run.

    Args:
        vocabulary: ids of the tokens that can be drafted, int64 [D], ascending.

    Raises:
        SessionError: TensorRT or the CUDA runtime is missing.
        BundleError: the bundle has no engine, none of its draft heads, none for this machine, or one that is damaged or
            not of this vocabulary: each with its reason.
        DoesNotFit: memory ran out.
    """
    chosen = chosen_engine(bundle, lambda entry: _check_drafts(entry, bundle))
    entry, trt, cuda = chosen
    assert entry.draft is not None
    # The decoder's files are read when that is opened. A draft graph has no operators of edgekit, and needs no plugin.
    check_engine_files(bundle, entry, [entry.draft.file])
    engine = open_engine(TrtEngine, trt, bundle.file(entry.draft.file))
    try:
        return TrtDraftSession(engine, cuda, vocabulary, description=chosen.description("draft engine"))
    except BaseException:
        engine.close()
        raise


def runs_draft_heads(bundle: Bundle) -> bool:
    """Whether this machine can run an engine that has one of the draft heads beside it. Reads no engine."""
    try:
        chosen_engine(bundle, lambda entry: _check_drafts(entry, bundle))
    except EdgekitError:
        return False
    return True


def _check_drafts(entry: EngineEntry, bundle: Bundle) -> None:
    if entry.draft is None:
        raise BundleError(
            "draft heads run in TensorRT by an engine of their own",
            f"{entry.name} was built without one",
            f"build both: edgekit build {bundle.path} --device {entry.device or 'DEVICE'}; or choose --draft ngram",
        )


def _check_capacity(entry: EngineEntry, capacity: int | None, bundle: Bundle) -> None:
    if capacity is not None and capacity > entry.max_kv_cache_capacity:
        raise SessionError(
            "a context must fit into the engine's",
            f"{capacity} tokens were asked for, {entry.name} holds {entry.max_kv_cache_capacity}",
            f"choose --max-context {entry.max_kv_cache_capacity} or less, or build a larger one: "
            f"edgekit build {bundle.path} --device {entry.device or 'DEVICE'} --help",
        )


def _mask_of_slots(bundle: Bundle) -> bool:
    """Whether the graph says that its attention mask may be longer than the tokens."""
    inputs = {each["name"]: each["shape"] for each in bundle.manifest.graph.inputs}
    return bool(inputs.get(contract.ATTENTION_MASK, ["", ""])[-1] == contract.AXIS_SLOTS)


def _registered(runtime: Any) -> list[RegisteredPlugin]:
    """The plugins that a runtime finds."""
    registry = runtime.get_plugin_registry()
    return [
        RegisteredPlugin(creator.name, creator.plugin_version, creator.plugin_namespace)
        for creator in registry.all_creators
    ]
