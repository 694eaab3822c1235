"""Shapes to serve, from the names of a graph's axes and of the inputs that decide shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit import contract
from edgekit.errors import BuildError

#: The smallest, the usual and the largest shape of an input.
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class AxisRange:
    """Sizes that an axis may have, and the one to optimise for."""

    smallest: int
    usual: int
    largest: int


#: Names of a decoder's optimisation profiles, in the engine's order.
PREFILL, DECODE = "prefill", "decode"
#: Name of a draft graph's only one.
DRAFT = "draft"


@dataclass(frozen=True)
class Limits:
    """What an engine serves.

    Attributes:
        max_batch_size: sequences.
        max_input_len: most new tokens at once, that is the longest piece of a prompt.
        max_kv_cache_capacity: most tokens in all.
        max_draft_len: tokens of a draft, which are verified together with the one before them: decoding takes 1 to
            max_draft_len + 1 positions.
    """

    max_batch_size: int = 1
    max_input_len: int = 512
    max_kv_cache_capacity: int = 4096
    max_draft_len: int = 4


def decoder_profiles(limits: Limits, *, in_place: bool) -> dict[str, dict[str, AxisRange]]:
    """Ranges of a decoder's axes, and of how many positions get logits: for pieces of a prompt, and for decoding.

    The smallest, the usual and the largest sizes of a profile are each those of one possible step, since TensorRT
    computes with them.

    Args:
        in_place: whether caches hold the full capacity and are written in place; otherwise they grow with each step.
    """
    capacity = limits.max_kv_cache_capacity
    longest = min(limits.max_input_len, capacity)
    prefill = decoder_axes(
        batch=limits.max_batch_size, new=longest, context=capacity, usual=(longest, 0), in_place=in_place
    )
    positions = min(limits.max_draft_len + 1, capacity)
    usual = (1, max(0, capacity // 2 - 1))
    decode = decoder_axes(batch=limits.max_batch_size, new=positions, context=capacity, usual=usual, in_place=in_place)
    return {PREFILL: prefill, DECODE: decode}


def draft_profiles(limits: Limits) -> dict[str, dict[str, AxisRange]]:
    """Ranges of a draft graph's axes: one draft for each sequence, after the positions of a step or of a pause."""
    positions = AxisRange(1, 2, contract.DRAFT_POSITIONS)
    return {DRAFT: {contract.AXIS_BATCH: AxisRange(1, 1, limits.max_batch_size), contract.AXIS_NEW: positions}}


def decoder_axes(
    *, batch: int, new: int, context: int, usual: tuple[int, int] | None = None, in_place: bool = False
) -> dict[str, AxisRange]:
    """Ranges of a decoder's axes, and of how many positions get logits.

    Args:
        batch: largest number of sequences.
        new: most new tokens at once, that is the longest piece of a prompt.
        context: most tokens in all.
        usual: new and past tokens of the step to optimise for; by default one token in the middle of the context.
        in_place: caches are written in place, so that there are never more than `context` tokens; growing caches take
            the longest step on top of the longest past.
    """
    fresh, past = usual if usual is not None else (1, max(1, context // 2) - 1)
    longest_past = max(0, context - new) if in_place else context - 1
    return {
        contract.AXIS_BATCH: AxisRange(1, 1, batch),
        contract.AXIS_SEQUENCE: AxisRange(1, fresh, new),
        contract.AXIS_PAST: AxisRange(0, past, longest_past),
        contract.AXIS_TOTAL: AxisRange(1, fresh + past, longest_past + new),
        contract.AXIS_SLOTS: AxisRange(1, fresh + past, longest_past + new),
        contract.AXIS_CAPACITY: AxisRange(context, context, context),
        contract.LOGITS_TO_KEEP: AxisRange(0, 1, new),
    }


def profile_shapes(inputs: Iterable[Any], axes: Mapping[str, AxisRange]) -> dict[str, Shapes]:
    """The shapes of every input with a dynamic axis, by its name.

    Args:
        inputs: TensorRT's ITensor of each network input.

    Raises:
        BuildError: a dynamic axis has no name, or its name no range.
    """
    found = {}
    for tensor in inputs:
        names = [tensor.get_dimension_name(axis) for axis in range(len(tensor.shape))]
        if all(size >= 0 for size in tensor.shape):
            continue
        ranges = [
            AxisRange(size, size, size) if size >= 0 else _range(tensor.name, axis, names[axis], axes)
            for axis, size in enumerate(tensor.shape)
        ]
        found[tensor.name] = (
            tuple(r.smallest for r in ranges),
            tuple(r.usual for r in ranges),
            tuple(r.largest for r in ranges),
        )
    return found


def _range(tensor: str, axis: int, name: str | None, axes: Mapping[str, AxisRange]) -> AxisRange:
    if name is None or name not in axes:
        raise BuildError(
            "every dynamic axis of the graph needs the sizes to serve",
            f"axis {axis} of {tensor} is called {name or 'nothing'}; sizes are given for {', '.join(axes) or 'none'}",
        )
    return axes[name]


def profile_values(inputs: Iterable[Any], axes: Mapping[str, AxisRange]) -> dict[str, Shapes]:
    """The values of every input that decides shapes, by its name; the input's name is looked up like that of an axis.

    Raises:
        BuildError: no range is given for it.
    """
    found = {}
    for tensor in inputs:
        if not tensor.is_shape_tensor:
            continue
        if tensor.name not in axes:
            raise BuildError(
                "an input whose values decide shapes needs the values to serve",
                f"{tensor.name} is one; values are given for {', '.join(axes) or 'none'}",
            )
        count = 1
        for size in tensor.shape:
            count *= size
        value = axes[tensor.name]
        found[tensor.name] = ((value.smallest,) * count, (value.usual,) * count, (value.largest,) * count)
    return found
