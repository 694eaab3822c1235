"""Rotary position embedding: tables of cosines and sines, computed once per base.

Frequencies follow Hugging Face: inverse_frequency[i] = theta ** (-2 i / D) for i < D/2, then scaled by one of the
kinds in `_SCALINGS`. Angles are computed in float64 and only the tables are rounded to float32: an angle of 8000
radians rounded to float32 is already off by 5e-4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.errors import ModelError

#: Inverse frequencies, float64 [D/2].
Frequencies = NDArray[np.float64]


class RotaryScaling(Protocol):
    """A change of the inverse frequencies that extends the context."""

    def __call__(self, frequencies: Frequencies) -> Frequencies: ...


@dataclass(frozen=True)
class LinearScaling:
    """All positions divided by `factor` (arXiv 2306.15595)."""

    factor: float

    def __call__(self, frequencies: Frequencies) -> Frequencies:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __call__(self, frequencies: Frequencies) -> Frequencies:
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0.0, 1.0)
        scaled: Frequencies = kept * frequencies + (1 - kept) * frequencies / self.factor
        return scaled


@dataclass(frozen=True)
class FactorScaling:
    """Each frequency divided by its own number (GGUF's rope_freqs.weight)."""

    factors: tuple[float, ...]

    def __call__(self, frequencies: Frequencies) -> Frequencies:
        if len(self.factors) != len(frequencies):
            raise ModelError(
                "RoPE factors must give one divisor per frequency.",
                f"{len(self.factors)} factors for {len(frequencies)} frequencies.",
                "Correct rope_scaling in the checkpoint's configuration.",
            )
        divided: Frequencies = frequencies / np.array(self.factors)
        return divided


@dataclass(frozen=True)
class Rotary:
    """Base and scaling of one rotary embedding."""

    theta: float
    scaling: RotaryScaling | None = None


def rotary_from_config(parameters: dict[str, Any], default_theta: float, max_position_embeddings: int) -> Rotary:
    """Reads one RoPE description of a Hugging Face config.

    Args:
        parameters: rope_theta and the scaling's own keys, either the rope_parameters of transformers 5 or rope_theta
            merged with the older rope_scaling, whose kind may be called "type".
        default_theta: the architecture's base where the config names none.
        max_position_embeddings: stands in for a missing original_max_position_embeddings.

    Raises:
        ModelError: unknown kind, missing number, or a rotation of only part of the head.
    """
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if float(parameters.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelError(
            "RoPE must rotate the whole head.",
            f"The configuration says partial_rotary_factor = {parameters['partial_rotary_factor']}.",
            "This form of RoPE is not supported.",
        )
    if kind not in _SCALINGS:
        raise ModelError(
            f"The RoPE type must be one of {', '.join(sorted(_SCALINGS))}.",
            f"The configuration says {kind!r}.",
            "This form of RoPE is not supported.",
        )
    try:
        theta = float(parameters.get("rope_theta") or default_theta)
        return Rotary(theta, _SCALINGS[kind](parameters, max_position_embeddings))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"RoPE of type {kind!r} needs its numbers in the configuration.",
            f"Missing or not a number: {error}.",
            "Correct rope_scaling (or rope_parameters) in the checkpoint's config.json.",
        ) from error


_SCALINGS: dict[str, Any] = {
    "default": lambda p, limit: None,
    "linear": lambda p, limit: LinearScaling(float(p["factor"])),
    "llama3": lambda p, limit: Llama3Scaling(
        float(p["factor"]),
        float(p["low_freq_factor"]),
        float(p["high_freq_factor"]),
        int(p.get("original_max_position_embeddings") or limit),
    ),
    "factors": lambda p, limit: FactorScaling(tuple(float(f) for f in p["factors"])),
}


def rotary_tables(
    head_dim: int, max_positions: int, theta: float, scaling: RotaryScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position * inverse_frequency: two float32 [max_positions, head_dim / 2] on the CPU.

    Raises:
        ModelError: the numbers of base and scaling give no finite, positive frequencies.
    """
    with np.errstate(all="ignore"):  # What goes wrong is refused below.
        frequencies = np.float64(theta) ** -(np.arange(0, head_dim, 2) / head_dim)
        if scaling is not None:
            frequencies = scaling(frequencies)
    if not (np.isfinite(frequencies) & (frequencies > 0)).all():
        raise ModelError(
            "RoPE's frequencies must be finite and positive.",
            f"theta = {theta} and {scaling} give others.",
            "Correct rope_theta and rope_scaling (or rope_parameters) in the checkpoint's config.json.",
        )
    positions = torch.arange(max_positions, dtype=torch.float64, device="cpu")
    angles = positions[:, None] * torch.tensor(frequencies, device="cpu")
    return angles.cos().float(), angles.sin().float()


class RotaryTables(nn.Module):
    """The tables of one base, as buffers `cos` and `sin` that all its layers share; not part of the state dict."""

    cos: Tensor
    sin: Tensor

    def __init__(self, rotary: Rotary, head_dim: int, max_positions: int) -> None:
        super().__init__()
        self.rotary, self.head_dim, self.max_positions = rotary, head_dim, max_positions
        cos, sin = self.compute()
        device = torch.get_default_device()
        self.register_buffer("cos", cos.to(device), persistent=False)
        self.register_buffer("sin", sin.to(device), persistent=False)

    def compute(self) -> tuple[Tensor, Tensor]:
        """The tables' real values on the CPU, also where the buffers are on the meta device."""
        return rotary_tables(self.head_dim, self.max_positions, self.rotary.theta, self.rotary.scaling)
