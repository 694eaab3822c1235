"""What an export will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.checkpoint import Checkpoint
from edgekit.compress.quantizer import QuantizationSettings, may_carry_over
from edgekit.compress.sensitivity import forced
from edgekit.compress.units import is_matrix, unit_of
from edgekit.export.options import ExportOptions

#: Resident memory of Python with torch and onnx loaded, before any weight (measured).
BASE_BYTES = 420 << 20
#: Fitted to exports of SmolLM2-135M on two cores at 2.6 GHz; see docs/performance.md.
TRACE_SECONDS_PER_LAYER = 0.5
WRITE_BYTES_PER_SECOND = 250e6
QUANTIZE_WEIGHTS_PER_SECOND = 20e6
GPTQ_WEIGHTS_PER_SECOND = 3.0e6
CALIBRATION_FLOPS = 60e9
#: A draft graph's files against the file of its heads: they also hold what heads need of the model.
DRAFT_GROWTH = {"fp32": 7.0, "fp16": 3.5, "int8": 2.3, "int4": 2.0}


@dataclass(frozen=True)
class Estimate:
    """Bytes on the disk, bytes of memory at the peak, seconds on a machine with two cores. Good to a factor of two."""

    bytes_on_disk: int
    peak_memory_bytes: int
    seconds: float


def estimate(checkpoint: Checkpoint, options: ExportOptions) -> Estimate:
    """Estimate an export from the checkpoint's sizes alone."""
    shapes = {name: checkpoint.spec(name).shape for name in checkpoint.names()}
    sizes = {name: _product(shape) for name, shape in shapes.items()}
    weights, largest = sum(sizes.values()), max(sizes.values())
    settings = options.quantization
    bits = {"fp32": 32.0, "fp16": 16.0}.get(options.dtype) or _bits_per_weight(settings)
    disk = int(weights * bits / 8) + (4 << 20)
    if options.draft is not None:
        disk += int(DRAFT_GROWTH[options.dtype] * Path(options.draft).stat().st_size)
    seconds = 8 + TRACE_SECONDS_PER_LAYER * int(checkpoint.config["num_hidden_layers"]) + disk / WRITE_BYTES_PER_SECOND
    # Two copies of the tensor at hand: as read, and as written.
    memory = BASE_BYTES + 2 * 4 * largest
    if settings is not None:
        memory += disk
        seconds += weights / QUANTIZE_WEIGHTS_PER_SECOND
        to_round = _weights_to_round(checkpoint, sizes, settings)
        if to_round:
            tokens = settings.sequences * settings.length
            memory += 4 * weights
            seconds += to_round / GPTQ_WEIGHTS_PER_SECOND + 8 * weights * tokens / CALIBRATION_FLOPS
    return Estimate(disk, memory, seconds)


def _weights_to_round(checkpoint: Checkpoint, sizes: dict[str, int], settings: QuantizationSettings) -> int:
    """How many weights need calibration: those that go below 8 bits and are not carried over."""
    if settings.bits == 8:
        return 0
    specs = [checkpoint.spec(name) for name in sizes]
    return sum(
        sizes[spec.name]
        for spec in specs
        if is_matrix(spec.name, spec.shape)
        and not forced(unit_of(spec.name), settings.keep_8bit)
        and not may_carry_over(spec.dtype, settings)
    )


def _bits_per_weight(settings: QuantizationSettings | None) -> float:
    """Codes and scales, float32 or for TensorRT float16; at 4 bits about a third of the weights stays at 8."""
    assert settings is not None
    if settings.for_tensorrt:
        return 8.1 if settings.bits == 8 else 5.4 + 16 / settings.block
    return (settings.bits if settings.bits == 8 else 5.4) + 32 / settings.block


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
