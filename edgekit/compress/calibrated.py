"""Quantisation below 8 bits: calibrate, round every unit by GPTQ, keep at 8 bits what would cost too much.

Needs torch.
"""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from edgekit.checkpoint import Checkpoint
from edgekit.compress.calibration import Statistics, calibration_text, calibration_tokens, measure
from edgekit.compress.gptq import gptq_quantize
from edgekit.compress.quantizer import QuantizedModel, carried_over, matrix_of, store_8bit
from edgekit.compress.sensitivity import Candidate, expected_cost, forced, units_at_8_bits
from edgekit.models.registry import model_from_checkpoint
from edgekit.progress import Progress

#: Input moments held at one time; more units mean more passes over the calibration text.
MOMENT_BYTES = 128 << 20


def quantize_calibrated(
    checkpoint: Checkpoint, units: dict[str, list[str]], result: QuantizedModel, progress: Progress
) -> None:
    """Quantise units into `result`, each with the low bit width or 8 bits; those that settings keep at 8 are left."""
    settings = result.settings
    chosen = {unit: names for unit, names in units.items() if not forced(unit, settings.keep_8bit)}
    units = {unit: names for unit, names in chosen.items() if not _carry_over(checkpoint, names, result)}
    if not units:
        return
    tokens = calibration_tokens(
        checkpoint.tokenizer_files()["tokenizer.json"], calibration_text(), settings.sequences, settings.length
    )
    progress.stage("load for calibration")
    model = model_from_checkpoint(checkpoint, max_positions=settings.length)
    candidates: dict[str, Candidate] = {}
    groups = moment_groups({unit: checkpoint.spec(names[0]).shape[1] for unit, names in units.items()})
    progress.stage("measure gradients", 2 * len(tokens), "sequences")
    # Halves: what a backward pass keeps grows with the length, and single tokens' gradients hardly depend on it.
    halves = tokens[:, : settings.length // 2 * 2].reshape(2 * len(tokens), -1)
    gradients = measure(model, halves, set(), gradients=True, advance=progress.advance).gradients
    _return_freed_memory()
    for index, group in enumerate(groups):
        part = f" ({index + 1}/{len(groups)})" if len(groups) > 1 else ""
        progress.stage(f"calibrate{part}", len(tokens), "sequences")
        statistics = measure(model, tokens, set(group), gradients=False, advance=progress.advance)
        progress.stage(f"quantise to {settings.bits} bits{part}", len(group), "units")
        for unit in group:
            candidates[unit] = _quantize_unit(checkpoint, unit, units[unit], statistics, gradients, result)
            progress.advance()
        _return_freed_memory()
    del model
    result.costs.update({unit: candidate.cost for unit, candidate in candidates.items()})
    kept = units_at_8_bits(candidates, settings.allowed_cost)
    progress.note(f"{len(kept)} of {len(units)} units stay at 8 bits")
    for unit in kept:
        for name in units[unit]:
            store_8bit(checkpoint, name, result)


def _return_freed_memory() -> None:
    """Have the C library give freed memory back to the system, where it can: glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def moment_groups(inputs: dict[str, int]) -> list[list[str]]:
    """Units in groups whose moments (K² floats each) fit in MOMENT_BYTES; a larger one is a group of its own."""
    groups: list[list[str]] = [[]]
    used = 0
    for unit, width in inputs.items():
        size = 4 * width * width
        if groups[-1] and used + size > MOMENT_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(unit)
        used += size
    return groups


def _quantize_unit(
    checkpoint: Checkpoint,
    unit: str,
    names: list[str],
    statistics: Statistics,
    gradients: dict[str, torch.Tensor],
    result: QuantizedModel,
) -> Candidate:
    """Quantise a unit's matrices to the low bit width into `result`, and say what that costs."""
    settings, moments = result.settings, statistics.moments[unit]
    weights = [matrix_of(checkpoint, name) for name in names]
    sensitivity = np.concatenate([gradients[name].numpy() for name in names])
    stacked = np.concatenate(weights)
    quantized = gptq_quantize(
        stacked, moments, settings.bits, settings.block, symmetric=settings.symmetric, positive=settings.for_tensorrt
    )
    error = stacked - quantized.dequantized()
    row = 0
    for name, weight in zip(names, weights, strict=True):
        result.matrices[name] = quantized.rows(row, row + len(weight))
        result.origin[name] = f"rounded to {settings.bits} bits by GPTQ"
        row += len(weight)
    return Candidate(expected_cost(error, moments.numpy(), sensitivity), _extra_bytes(result, names))


def _carry_over(checkpoint: Checkpoint, names: list[str], result: QuantizedModel) -> bool:
    """Take a unit's own integers over where all its matrices have them with the low bit width."""
    carried = [carried_over(checkpoint, name, result.settings) for name in names]
    if any(part is None or part.bits != result.settings.bits for part in carried):
        return False
    for name, part in zip(names, carried, strict=True):
        assert part is not None
        result.matrices[name] = part
        result.origin[name] = f"carried over from {checkpoint.spec(name).dtype}"
    return True


def _extra_bytes(result: QuantizedModel, names: list[str]) -> int:
    """What 8 bits would add to these matrices."""
    return sum(result.matrices[name].codes.size * (8 - result.settings.bits) // 8 for name in names)
