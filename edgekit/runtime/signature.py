"""What a decoder's inputs and outputs say: its cache tensors and its vocabulary; and what a call of it must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.contract import TensorSignature
from edgekit.errors import BundleError, SessionError

CACHE_KINDS = (contract.CACHE_SHARED, contract.CACHE_CONCAT)
_CACHE_DTYPES = ("float32", "float16")
_PAST = re.compile(r"past_key_values\.(\d+)\.(\w+)")


@dataclass(frozen=True)
class BoundTensor:
    """One cache tensor of one layer and its graph names."""

    layer: int
    form: contract.CacheTensor
    past: str
    present: str


@dataclass(frozen=True)
class CacheGeometry:
    """What the graph's past inputs say: all layers' cache tensors, in graph order, and their element type.

    `slots`: tokens that every buffer must have room for, where the graph fixes that.
    """

    tensors: tuple[BoundTensor, ...]
    dtype: npt.DTypeLike
    slots: int | None = None

    def by_layer(self, arrays: Sequence[npt.NDArray[Any]]) -> list[dict[str, npt.NDArray[Any]]]:
        """Arrays in the order of `tensors` as one table per layer, by suffix."""
        layers: list[dict[str, npt.NDArray[Any]]] = [{} for _ in range(self.tensors[-1].layer + 1)]
        for tensor, array in zip(self.tensors, arrays, strict=bool(arrays)):
            layers[tensor.layer][tensor.form.suffix] = array
        return layers


def cache_geometry(inputs: Sequence[TensorSignature], outputs: Sequence[TensorSignature], graph: str) -> CacheGeometry:
    """The cache that a graph's inputs and outputs imply; sizes that vary are texts or negative.

    Args:
        graph: its name, for messages.

    Raises:
        BundleError: they are not those of `edgekit.contract`.
    """
    presents = {value.name: value for value in outputs}
    tensors: list[BoundTensor] = []
    types = set()
    rooms = set()
    for value in inputs:
        if (match := _PAST.fullmatch(value.name)) is None:
            continue
        layer, suffix = int(match[1]), match[2]
        _require(suffix in contract.SEQUENCE_AXES, graph, f"its cache has an unknown tensor {value.name}")
        axis = contract.SEQUENCE_AXES[suffix]
        others = [size for i, size in enumerate(value.shape) if i not in (0, axis)]
        _require(
            len(value.shape) == 4 and all(_fixed(size) for size in others),
            graph,
            f"{value.name} has shape {list(value.shape)}",
        )
        present = contract.present_name(layer, suffix)
        _require(present in presents, graph, f"it lacks {present}")
        _require(value.dtype in _CACHE_DTYPES, graph, f"{value.name} is {value.dtype}")
        types |= {value.dtype, presents[present].dtype}
        _require(len(types) == 1, graph, f"its cache is of several types: {', '.join(sorted(types))}")
        sizes = (int(others[0]), int(others[1]))
        rooms.add(int(value.shape[axis]) if _fixed(value.shape[axis]) else None)
        tensors.append(BoundTensor(layer, contract.CacheTensor(suffix, sizes), value.name, present))
    layers = [tensor.layer for tensor in tensors]
    _require(bool(layers), graph, f"it lacks {contract.past_name(0, contract.KEY)}")
    in_order = layers == sorted(layers) and set(layers) == set(range(layers[-1] + 1))
    _require(in_order, graph, "its layers are not in order")
    _require(len(rooms) == 1, graph, "its buffers are of several capacities")
    return CacheGeometry(tuple(tensors), np.dtype(types.pop()), rooms.pop())


def decoder_signature(
    inputs: Sequence[TensorSignature], outputs: Sequence[TensorSignature], graph: str
) -> tuple[CacheGeometry, int]:
    """The cache geometry and the vocabulary that a graph's inputs and outputs imply. Raises BundleError."""
    geometry = cache_geometry(inputs, outputs, graph)
    names = {value.name for value in inputs}
    expected = {contract.INPUT_IDS, contract.ATTENTION_MASK, contract.LOGITS_TO_KEEP}
    _require(expected <= names, graph, f"it lacks {', '.join(sorted(expected - names))}")
    logits = next((value for value in outputs if value.name == contract.LOGITS), None)
    if logits is None:
        raise _other_contract(graph, f"it lacks {contract.LOGITS}")
    _require(logits.dtype == "float32", graph, f"{logits.name} is {logits.dtype}")
    fitting = len(logits.shape) == 3 and _fixed(logits.shape[2])
    _require(fitting, graph, f"{logits.name} has shape {list(logits.shape)}")
    unknown = names - expected - {tensor.past for tensor in geometry.tensors}
    _require(not unknown, graph, f"it has more inputs: {', '.join(sorted(unknown))}")
    return geometry, int(logits.shape[2])


def features_width(outputs: Sequence[TensorSignature], graph: str) -> int:
    """How many numbers the graph gives draft heads for a position; 0 where it gives none. Raises BundleError."""
    features = next((value for value in outputs if value.name == contract.DRAFT_FEATURES), None)
    if features is None:
        return 0
    _require(features.dtype == "float32", graph, f"{features.name} is {features.dtype}")
    fitting = len(features.shape) == 3 and _fixed(features.shape[2]) and int(features.shape[2]) > 0
    _require(fitting, graph, f"{features.name} has shape {list(features.shape)}")
    return int(features.shape[2])


def first_tokens(length: int, axis: int) -> tuple[slice, ...]:
    """The index of the first tokens of a cache tensor whose tokens lie along `axis`."""
    return (*(slice(None),) * axis, slice(length))


def check_opening(cache_kind: str, capacity: int | None, capacity_limit: int) -> int:
    """The tokens of context that a session gets.

    Args:
        capacity: most tokens wanted; None for the limit.

    Raises:
        SessionError: `capacity` is not one the bundle allows.
        BundleError: the kind of cache is unknown.
    """
    if capacity is not None and not 1 <= capacity <= capacity_limit:
        raise SessionError(
            "a context must hold at least 1 token and at most what the bundle allows",
            f"{capacity} tokens were asked for, the bundle allows {capacity_limit}",
            f"choose --max-context between 1 and {capacity_limit}",
        )
    if cache_kind not in CACHE_KINDS:
        raise BundleError(
            f"a cache is {' or '.join(CACHE_KINDS)}",
            f"it is {cache_kind!r}",
            "export the bundle again with this version of edgekit",
        )
    return capacity or capacity_limit


def check_call(
    tokens: npt.NDArray[np.int64], keep: int, *, vocab: int, length: int, capacity: int, last_batch: int
) -> tuple[int, int]:
    """Batch and number of new tokens of a call of DecoderSession.forward.

    Args:
        vocab, capacity: of the session.
        length, last_batch: tokens in its cache, and the batch they belong to.

    Raises:
        SessionError: the tokens are malformed, or do not fit.
    """
    if tokens.ndim != 2 or tokens.dtype != np.int64 or 0 in tokens.shape:
        raise SessionError(
            "tokens are int64 [batch, sequence] with at least one of each",
            f"they are {tokens.dtype} {list(tokens.shape)}",
        )
    lowest, highest = (tokens.min(), tokens.max()) if tokens.size > 1 else (tokens.item(), tokens.item())
    if lowest < 0 or highest >= vocab:
        raise SessionError(
            "a token is a row of the vocabulary",
            f"tokens lie between {lowest} and {highest}, the vocabulary has {vocab}",
        )
    batch, new = tokens.shape
    if keep < 0:
        raise SessionError("the positions to keep are 0 (all) or more", f"{keep} were asked for")
    if length and batch != last_batch:
        raise SessionError(
            "a batch stays the same until the session is reset", f"it was {last_batch}, now it is {batch}"
        )
    if length + new > capacity:
        raise SessionError(
            "tokens must fit into the context",
            f"it holds {capacity}, {length} are used, {new} more were given",
        )
    return batch, new


def check_rollback(length: int, held: int) -> None:
    """Raises SessionError unless a cache of `held` tokens can go back to `length`."""
    if not 0 <= length <= held:
        raise SessionError("a cache can only go back", f"it holds {held} tokens, {length} were asked for")


def _fixed(size: str | int) -> bool:
    return isinstance(size, int) and size >= 0


def _require(condition: bool, graph: str, fact: str) -> None:
    if not condition:
        raise _other_contract(graph, fact)


def _other_contract(graph: str, fact: str) -> BundleError:
    return BundleError(
        "a decoder's inputs and outputs must be those that edgekit writes",
        f"{graph}: {fact}",
        "export the bundle again with this version of edgekit",
    )
