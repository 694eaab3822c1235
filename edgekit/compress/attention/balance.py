"""The scale of each cached number, which is free: what enters the cache larger is read smaller.

While they are trained, latents of equal size suit the optimiser. In a cache they should be as large as what they stand
for: then an error of a given size, by a narrow type or by rounding before it, costs the same wherever it falls, and the
angle between two rows of a cache says how far what is rebuilt from them differs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgekit.compress.attention.linear import floored


def balanced(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a converted attention module by name, rescaled for a cache: all cached numbers are read alike.

    Together they stay as large as if each had been of the same size before; the module's output stays.
    """
    found = dict(tensors)
    for reader, projection, power in _readers(found):
        _rescale(found, reader, projection, _size(power))
    return found


def evened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, rescaled for training: all rows that make the cached numbers are of one norm; the output stays."""
    found = dict(tensors)
    for reader, projection, _ in _readers(found):
        rows = found[f"{projection}.weight"].square().mean(1)
        if reader == "q_mix":  # real and imaginary parts go together
            rows = rows.view(2, -1).mean(0)
        _rescale(found, reader, projection, 1 / _size(rows))
    return found


def _readers(tensors: Mapping[str, Tensor]) -> list[tuple[str, str, Tensor]]:
    """What reads cached numbers, the projection that makes them, and the reader's mean square per number."""
    found = []
    if "v_up" in tensors:  # [H, D, r]
        found.append(("v_up", "v_proj", tensors["v_up"].square().mean((0, 1))))
    if "k_up" in tensors:  # [r, N]
        found.append(("k_up", "k_proj", tensors["k_up"].square().mean(1)))
    if "q_mix" in tensors:  # [2, H, n], a complex number each
        found.append(("q_mix", "k_proj", tensors["q_mix"].square().sum(0).mean(0)))
    return found


def _rescale(tensors: dict[str, Tensor], reader: str, projection: str, size: Tensor) -> None:
    """Multiply what is cached by `size`, and divide what reads it."""
    tensors[reader] = tensors[reader] / (size[:, None] if reader == "k_up" else size)
    rows = torch.cat((size, size)) if reader == "q_mix" else size
    tensors[f"{projection}.weight"] = tensors[f"{projection}.weight"] * rows[:, None]
    if f"{projection}.bias" in tensors:
        tensors[f"{projection}.bias"] = tensors[f"{projection}.bias"] * rows


def _size(power: Tensor) -> Tensor:
    """How large a number should be for readers of that mean square, all together of mean square 1."""
    power = floored(power)
    return (power / power.mean()).sqrt()
