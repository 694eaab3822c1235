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


def decoder_axes(*, batch: int, new: int, context: int) -> dict[str, AxisRange]:
    """Ranges of a decoder's axes, and of how many positions get logits.

    Decoding one token for one sequence is what is optimised for.

    Args:
        batch: largest number of sequences.
        new: most new tokens at once, that is the longest piece of a prompt.
        context: most tokens in all.
    """
    usual = max(1, context // 2)
    return {
        contract.AXIS_BATCH: AxisRange(1, 1, batch),
        contract.AXIS_SEQUENCE: AxisRange(1, 1, new),
        contract.AXIS_PAST: AxisRange(0, usual - 1, context - 1),
        contract.AXIS_TOTAL: AxisRange(1, usual, context),
        contract.AXIS_SLOTS: AxisRange(1, usual, context),
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
