"""Timing a session while its device's power is read, and what a token takes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgekit.benchmark.measure import Span, Timing, measure
from edgekit.device.reading import Reading, energy_over
from edgekit.device.telemetry import Recorder
from edgekit.progress import Progress
from edgekit.runtime.session import DecoderSession

#: Looks at the power within what is measured, below which its energy is not told: a card renews its figure every 0.1 s
#: or less often.
LEAST_READINGS = 3


def measured(
    session: DecoderSession, vocab: int, timing: Timing, progress: Progress, recorder: Recorder | None = None
) -> dict[str, Any]:
    """What `measure` gives, for JSON; with "telemetry", and "tokens_per_joule" of each prompt length and depth.

    Args:
        vocab: size of the vocabulary.
        recorder: reads the device meanwhile.
    """
    recorder = recorder or Recorder()
    with recorder:
        timings = measure(session, vocab, timing, progress)
    found = timings.to_dict(timing)
    readings = recorder.readings
    for row in found["prompts"]:
        row["tokens_per_joule"] = tokens_per_joule(row["tokens"], timings.prompt_spans[row["tokens"]], readings)
    for row in found["decodes"]:
        row["tokens_per_joule"] = tokens_per_joule(row["tokens"], timings.decode_spans[row["depth"]], readings)
    return {**found, "telemetry": asdict(recorder.telemetry)}


def tokens_per_joule(tokens: int, spans: Sequence[Span], readings: Sequence[Reading]) -> float | None:
    """Tokens over the energy of the spans of time that they were made in; None where power was read too seldom there.

    A span that the readings do not reach around, such as one that ends after the last, is left out with its tokens.

    Args:
        tokens: of each span.
    """
    powered = [each for each in readings if each.power_w is not None]
    parts = {(start, end): energy_over(powered, start, end) for start, end in spans}
    reached = {span: energy for span, energy in parts.items() if energy is not None}
    inside = sum(any(start <= each.seconds <= end for start, end in reached) for each in powered)
    energy = sum(reached.values())
    return tokens * len(reached) / energy if inside >= LEAST_READINGS and energy > 0 else None


def energy_lines(found: dict[str, Any]) -> list[str]:
    """Power, temperature, clocks and tokens per joule of what `measured` gave; or why there are none."""
    told = found["telemetry"]
    if told["missing"]:
        return [f"power: not measured: {told['missing']}"]
    lines = [_power_line(told)]
    if told["mean_power_w"] is not None:
        for name, size, rows in (("prompt of", "tokens", "prompts"), ("decode at depth", "depth", "decodes")):
            lines += [_energy_line(f"{name} {row[size]}", row["tokens_per_joule"]) for row in found[rows]]
    return lines


def _power_line(told: dict[str, Any]) -> str:
    parts = ["not told"]
    if told["mean_power_w"] is not None:
        parts = [f"{told['mean_power_w']:.1f} W on average, {told['peak_power_w']:.1f} W at most"]
    if told["peak_temperature_c"] is not None:
        parts.append(f"{told['peak_temperature_c']:.0f} °C at most")
    if told["mean_gpu_clock_hz"] is not None:
        clock, least = told["mean_gpu_clock_hz"] / 1e6, told["least_gpu_clock_hz"] / 1e6
        parts.append(f"GPU at {clock:,.0f} MHz on average, {least:,.0f} at least")
    if told["mean_memory_clock_hz"] is not None:
        parts.append(f"memory at {told['mean_memory_clock_hz'] / 1e6:,.0f} MHz")
    mode = f", power mode {told['power_mode']}" if told["power_mode"] else ""
    return f"power: {'; '.join(parts)} ({told['source']}{mode}; {told['readings']} readings)"


def _energy_line(name: str, tokens_per_joule: float | None) -> str:
    if tokens_per_joule is None:
        return f"energy, {name}: not told, the power was read too seldom in so short a time: raise --repetitions"
    return f"energy, {name}: {tokens_per_joule:.3g} tokens/J"
