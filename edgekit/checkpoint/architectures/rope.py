"""RoPE scaling as a GGUF file states it, in the words of config.json."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.checkpoint.architectures.table import Metadata

#: The parameters of every published Llama 3.1 to 3.3 model (config.json of meta-llama/Llama-3.1-8B and -3.2-1B); only
#: `factor` differs between them (8 and 32), and it is the largest divisor in the file.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def llama3_factors(
    theta: float, head_dim: int, factor: float, low: float, high: float, original: int
) -> npt.NDArray[np.float64]:
    """Divisors [head_dim/2] of the rotary frequencies under Llama 3's rule.

    Frequencies whose wavelength is under original/high tokens stay, those over original/low are divided by `factor`,
    and those between are interpolated.
    """
    frequency = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    wavelength = 2 * math.pi / frequency
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    factors: npt.NDArray[np.float64] = 1.0 / ((1 - smooth) / factor + smooth)
    return factors


def scaling_from_factors(factors: npt.NDArray[np.float32], theta: float, head_dim: int) -> dict[str, Any] | None:
    """`rope_scaling` for the tensor rope_freqs.weight: Llama 3's rule where it gives these factors, else the factors.

    None where every factor is 1.
    """
    if np.all(factors == 1):
        return None
    factor = float(factors.max())
    expected = llama3_factors(theta, head_dim, factor, *LLAMA3.values())  # type: ignore[arg-type]
    if factors.shape == expected.shape and np.allclose(factors, expected, rtol=1e-4, atol=0):
        return {"rope_type": "llama3", "factor": factor, **LLAMA3}
    return {"rope_type": "factors", "factors": [float(f) for f in factors]}


def scaling_from_metadata(metadata: Metadata) -> dict[str, Any] | None:
    """`rope_scaling` for the keys {arch}.rope.scaling.*, or None where the file states no scaling."""
    kind = metadata.get("rope.scaling.type") if metadata.has("rope.scaling.type") else None
    if kind is None and metadata.has("rope.scale_linear"):  # the key of older converters
        factor = metadata.number("rope.scale_linear")
        return {"rope_type": "linear", "factor": factor} if factor != 1 else None
    if kind is None and metadata.has("rope.scaling.factor"):  # llama.cpp's default type
        kind = "linear"
    if kind in (None, "none"):
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": metadata.number("rope.scaling.factor", 1.0)}
    if metadata.has("rope.scaling.original_context_length"):
        scaling["original_max_position_embeddings"] = metadata.count("rope.scaling.original_context_length")
    if metadata.has("rope.scaling.attn_factor"):
        scaling["attention_factor"] = metadata.number("rope.scaling.attn_factor")
    return scaling
