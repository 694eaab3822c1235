"""GPTQ: rounding one input column after another, each time moving the error into the columns still to come.

Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1, with the block scales chosen when the block is reached
(as its section 4.2 does for grouping), by the weighted search of `blockwise`.
"""

from __future__ import annotations

import numpy as np
import torch

from edgekit.compress.blockwise import BlockQuantized, Floats, joined, quantize_blocks

#: Added to the diagonal of the Hessian, as a share of its mean: calibration text never excites every direction.
DAMPING = 0.01

ROWS_AT_A_TIME = 8192


def gptq_quantize(
    weight: Floats,
    moments: torch.Tensor,
    bits: int,
    block: int,
    *,
    symmetric: bool = False,
    positive: bool = False,
    upper: torch.Tensor | None = None,
) -> BlockQuantized:
    """Quantise W [N, K] so that E‖(W − Ŵ)x‖² is small.

    Args:
        weight: float32 [N, K].
        moments: float32 or float64 [K, K], E[x xᵀ] of the inputs.
        bits, block, symmetric, positive: as in `quantize_blocks`.
        upper: `inverse_factor` of the moments, where several matrices share it.
    """
    upper = inverse_factor(moments) if upper is None else upper
    importance = np.ascontiguousarray(moments.diagonal().float().numpy())
    # Rows do not depend on each other: a vocabulary's worth of them is done in parts, to bound the memory.
    starts = range(0, len(weight), ROWS_AT_A_TIME)
    parts = [
        _quantize_rows(weight[start : start + ROWS_AT_A_TIME], upper, importance, bits, block, symmetric, positive)
        for start in starts
    ]
    return joined(parts)


def _quantize_rows(
    weight: Floats, upper: torch.Tensor, importance: Floats, bits: int, block: int, symmetric: bool, positive: bool
) -> BlockQuantized:
    rest = torch.from_numpy(np.array(weight, dtype=np.float32))
    inputs = rest.shape[1]
    top = 2**bits - 1
    codes, scales, zeros = [], [], []
    for start in range(0, inputs, block):
        end = min(start + block, inputs)
        part = rest[:, start:end].contiguous()
        grid = quantize_blocks(
            part.numpy(), bits, block, symmetric=symmetric, positive=positive, importance=importance[start:end]
        )
        scale = torch.from_numpy(grid.scales[:, 0])
        zero = torch.from_numpy(grid.zero_points[:, 0].astype(np.float32))
        errors = torch.zeros_like(part)
        chosen = torch.zeros(len(rest), block)
        for column in range(end - start):
            value = part[:, column]
            code = (torch.round(value / scale) + zero).clamp_(0, top)
            chosen[:, column] = code
            row = upper[start + column, start + column : end]
            error = (value - (code - zero) * scale) / row[0]
            errors[:, column] = error
            part[:, column:] -= error[:, None] * row
        if end < inputs:
            rest[:, end:] -= errors @ upper[start:end, end:]
        chosen[:, end - start :] = zero[:, None]
        codes.append(chosen.to(torch.uint8).numpy())
        scales.append(grid.scales)
        zeros.append(grid.zero_points)
    return BlockQuantized(
        np.stack(codes, axis=1), np.concatenate(scales, axis=1), np.concatenate(zeros, axis=1), bits, inputs
    )


def inverse_factor(moments: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped moments, float32 [K, K]."""
    damped = moments.double()
    dead = damped.diagonal() <= 0
    damped = damped + torch.diag(DAMPING * damped.diagonal().mean() + dead.double())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
