"""The in-place cache rule on top of a form that only grows: what the buffers hold afterwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.ops.spec import OpSpec

Arrays = dict[str, np.ndarray]


def in_place_by_growing(spec: OpSpec, inputs: Arrays, grow: Callable[[Arrays], Arrays]) -> Arrays:
    """Run `grow` on the used part of the past buffers; put its presents at the start of copies of the buffers."""
    pasts = {operand.past: operand.name for operand in spec.outputs if operand.past}
    total = inputs["attention_mask"].shape[1]
    new = next(array.shape[1] for name, array in inputs.items() if name in ("new", "b_k"))
    used = {name: array[:, : total - new] if name in pasts else array for name, array in inputs.items()}
    outputs = grow(used)
    for past, present in pasts.items():
        if past in inputs:
            buffer = inputs[past].copy()
            buffer[:, :total] = outputs[present]
            outputs[present] = buffer
    return outputs
