"""Quantising a model's matrices: what is carried over, what is rounded, with how many bits, and a record of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.interface import QuantBlocks
from edgekit.compress.blockwise import BlockQuantized, Floats, joined, quantize_blocks
from edgekit.compress.units import unit_of, units_of
from edgekit.progress import Progress

#: Expected increase of the loss, nats per token, up to which matrices go to 4 bits. On text of another kind than the
#: calibration's, SmolLM2-135M lost two to three times as much: 0.012 is meant to stay below 4 % of perplexity.
ALLOWED_COST = 0.012

#: The head is read once per token and decides it; tied to the embedding, its errors enter twice.
KEEP_8BIT = ("lm_head",)


@dataclass(frozen=True)
class QuantizationSettings:
    """What the user chose.

    Attributes:
        bits: 4 or 8.
        block: inputs per scale.
        symmetric: no zero points, for formats that have none.
        for_tensorrt: scales above zero, which TensorRT insists on, and one per output at 8 bits: TensorRT-RTX
            multiplies by such codes directly, but expands 8-bit codes with a scale per block to a matrix in memory.
        allowed_cost: see ALLOWED_COST; only for 4 bits.
        keep_8bit: shell patterns of units that stay at 8 bits in any case.
        carry_over: take a checkpoint's own integers where the target holds them exactly; see `carried_over`.
        sequences, length: calibration passages and tokens of each.
    """

    bits: int
    block: int = 32
    symmetric: bool = False
    for_tensorrt: bool = False
    allowed_cost: float = ALLOWED_COST
    keep_8bit: tuple[str, ...] = KEEP_8BIT
    carry_over: bool = True
    sequences: int = 32
    length: int = 128


@dataclass
class QuantizedModel:
    """Quantised matrices by checkpoint name, and how each came about.

    Attributes:
        matrices: weight name → its quantised form.
        origin: weight name → "carried over from Q8_0", "gptq", "search".
        costs: unit → expected increase of the loss in nats per token at the low bit width; empty when not measured.
    """

    settings: QuantizationSettings
    matrices: dict[str, BlockQuantized] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)

    def matrix(self, sources: tuple[str, ...]) -> BlockQuantized | None:
        """The quantised form of matrices stacked by rows; None if one is not quantised, or bits or blocks differ."""
        parts = [self.matrices[source] for source in sources if source in self.matrices]
        kinds = {(part.bits, part.codes.shape[2], part.offsets is None) for part in parts}
        if len(parts) != len(sources) or len(kinds) != 1:
            return None
        return parts[0] if len(parts) == 1 else joined(parts)

    def record(self) -> dict[str, Any]:
        """For the manifest: settings, bits per unit and origins."""
        tokens = self.settings.sequences * self.settings.length
        kept = sorted({unit_of(name) for name, matrix in self.matrices.items() if matrix.bits > self.settings.bits})
        return {
            "method": "block",
            "bits": self.settings.bits,
            "block_size": None if self.settings.for_tensorrt and self.settings.bits == 8 else self.settings.block,
            "symmetric": self.settings.symmetric,
            "scales_at_8_bits": "per output" if self.settings.for_tensorrt else "per block",
            "units_at_8_bits": kept,
            "allowed_cost_nats": self.settings.allowed_cost if self.costs else None,
            "expected_cost_nats": {unit: round(cost, 6) for unit, cost in sorted(self.costs.items())},
            "origin": dict(Counter(self.origin.values())),
            "weight_bytes": sum(matrix.nbytes() for matrix in self.matrices.values()),
            "calibration": {"text": "edgekit/compress/data/calibration.txt", "tokens": tokens} if self.costs else None,
        }


def may_carry_over(stored: str, settings: QuantizationSettings) -> bool:
    """Whether matrices stored as this GGML type keep their integers at the low bit width; see `carried_over`."""
    bits = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}.get(stored)
    symmetric_enough = stored != "Q4_1" or not settings.symmetric
    return settings.carry_over and settings.block == 32 and bits == settings.bits and symmetric_enough


def carried_over(checkpoint: Checkpoint, name: str, settings: QuantizationSettings) -> BlockQuantized | None:
    """The checkpoint's own integers where the target format can hold them exactly, else None.

    Q4_0 (scale · (code − 8)) and Q8_0 (scale · code) fit a format with integer zero points and blocks of 32. The
    minimum of Q4_1 (scale · code + minimum) is no multiple of its scale: what the nearest zero point leaves becomes
    an offset, which the `ort` form stores as a column (`with_offset_columns`). Symmetric formats, those of the
    `portable` form, hold neither zero points nor offsets.
    """
    blocks = checkpoint.blocks(name) if settings.carry_over and settings.block == 32 else None
    if blocks is None or blocks.bits not in (settings.bits, 8):
        return None
    if blocks.minimum is not None:
        return _with_minimum(blocks) if not settings.symmetric else None
    if blocks.bits == 8:
        codes = (blocks.codes.astype(np.int16) + 128).astype(np.uint8)
        zero = 128
    else:
        codes, zero = blocks.codes.astype(np.uint8), blocks.zero_point
    zeros = np.full(blocks.scale.shape, zero, np.uint8)
    inputs = codes.shape[1] * codes.shape[2]
    return BlockQuantized(codes, blocks.scale.astype(np.float32), zeros, blocks.bits, inputs)


def _with_minimum(blocks: QuantBlocks) -> BlockQuantized:
    """scale · code + minimum as scale · (code − zero_point) + offset, |offset| ≤ scale / 2 where zero_point allows."""
    assert blocks.minimum is not None
    top = 2**blocks.bits - 1
    safe = np.where(blocks.scale == 0, np.float32(1), blocks.scale)
    zeros = np.clip(np.rint(-blocks.minimum / safe), 0, top)
    offsets = (blocks.minimum + blocks.scale * zeros).astype(np.float32)
    codes = blocks.codes.astype(np.uint8)
    inputs = codes.shape[1] * codes.shape[2]
    return BlockQuantized(codes, blocks.scale.astype(np.float32), zeros.astype(np.uint8), blocks.bits, inputs, offsets)


def quantized_model(
    checkpoint: Checkpoint, names: list[str], settings: QuantizationSettings, progress: Progress
) -> QuantizedModel:
    """Quantise the matrices called `names`.

    4 bits needs torch for calibration; 8 bits does not. An embedding beside a head of its own is kept at 8 bits:
    looking up a row costs nothing, whatever its width.
    """
    result = QuantizedModel(settings)
    low_bits = settings.bits < 8
    if low_bits:
        from edgekit.compress.calibrated import quantize_calibrated

        quantize_calibrated(checkpoint, units_of(names), result, progress)
    rest = [name for name in names if name not in result.matrices]
    if rest:
        progress.stage("quantise to 8 bits", len(rest), "matrices")
    for name in rest:
        store_8bit(checkpoint, name, result)
        progress.advance()
    return result


def store_8bit(checkpoint: Checkpoint, name: str, result: QuantizedModel) -> None:
    """Quantise one matrix to 8 bits into `result`, carrying its integers over where they fit."""
    carried = carried_over(checkpoint, name, result.settings)
    if carried is not None and carried.bits == 8:
        result.matrices[name] = carried
        result.origin[name] = f"carried over from {checkpoint.spec(name).dtype}"
        return
    weight, settings = matrix_of(checkpoint, name), result.settings
    block = weight.shape[1] if settings.for_tensorrt else settings.block
    result.matrices[name] = quantize_blocks(
        weight, 8, block, symmetric=settings.symmetric, positive=settings.for_tensorrt
    )
    result.origin[name] = "rounded to 8 bits, scales by least squares"


def matrix_of(checkpoint: Checkpoint, name: str) -> Floats:
    """A checkpoint matrix as float32 [N, K]."""
    return np.asarray(checkpoint.array(name), dtype=np.float32)
