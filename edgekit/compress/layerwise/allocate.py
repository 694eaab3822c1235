"""Sharing bytes between matrices by what they were measured to lose."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.compress.layerwise.calibrate import metric_of
from edgekit.compress.layerwise.fit import LayerJob, Work
from edgekit.compress.layerwise.options import CODES
from edgekit.compress.layerwise.plan import settings_from
from edgekit.compress.layerwise.worth import PROBE_CORRECTION, Choice, Points, choices, probe_base
from edgekit.compress.saten.allocation import Option, allocated
from edgekit.compress.saten.decompose import compress_matrix
from edgekit.compress.saten.methods.saten_augmented import asked_bytes, possible_bases
from edgekit.compress.saten.request import Settings
from edgekit.contract import KIND_DECODER, KIND_ENCODER
from edgekit.errors import ExportError
from edgekit.files import atomic_write

#: A probe of codes tells the loss of others (`worth`).
QUANTISING = CODES
#: Shares of the budget that other methods are probed at.
SHARES = (0.5, 1.0, 2.0)
#: Bits per weight that a matrix may get, as shares of the average, in steps of STEP bits.
LEAST, MOST, STEP = 0.6, 1.7, 0.125

#: Losses are shared out by loss^damping: they are of second order and of few tokens, and at their word (1) they starve
#: what seems to matter least. By kind of model, chosen by what became of one: docs/compression.md.
DAMPING = {KIND_DECODER: 0.75, KIND_ENCODER: 0.35}


def probes(
    method: str, matrices: Mapping[str, tuple[int, int]], bits: float, settings: Settings
) -> dict[str, list[Work]]:
    """What to fit for each matrix in order to know its loss at other sizes."""
    found = {}
    for name, (rows, columns) in matrices.items():
        size = rows * columns / 8
        if method in QUANTISING:
            base, code_bits, block = probe_base((rows, columns), settings)
            chosen = {"base_bits": [code_bits], "base_blocks": [block], "rounds": 1, "symmetric": settings.symmetric}
            found[name] = [Work(name, "dense", base, chosen)]
            if method == "saten-augmented" and settings.sparsity is None:
                found[name].append(Work(name, method, base + int(PROBE_CORRECTION * size), chosen))
        else:
            found[name] = [Work(name, method, int(bits * share * size), {"rounds": 1}) for share in SHARES]
    return found


def probe_layer(job: LayerJob) -> int:
    """Fit a layer's probes on one thread and write the points: {matrix: [[bytes, loss], …]}. Returns the layer."""
    result = Path(job.result)
    if result.is_file():
        return job.layer
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(Path(job.checkpoint))
    points: dict[str, list[tuple[int, float]]] = {}
    for work in job.works:
        weight = torch.from_numpy(np.array(checkpoint.array(work.matrix), dtype=np.float32))
        measured = metric_of(Path(job.statistics), job.layer, work.matrix, weight)
        settings = settings_from(work.settings)
        try:
            fitted = compress_matrix(weight, work.method, budget=work.nbytes, measured=measured, settings=settings)
        except ExportError:
            continue  # too small for the method: larger probes tell
        points.setdefault(work.matrix, []).append((fitted.nbytes, fitted.loss))
    atomic_write(result, json.dumps(points))
    return job.layer


def least_bytes(method: str, shape: tuple[int, int], settings: Settings) -> int:
    """What a matrix takes at least where a method's codes decide; 0 for other methods."""
    if method not in QUANTISING:
        return 0
    part = asked_bytes(shape, settings) if method == "saten-augmented" else 0
    return min(size for size, _, _ in possible_bases(shape, settings)) + part


def shared(
    method: str,
    matrices: Mapping[str, tuple[int, int]],
    points: Mapping[str, Points],
    budget: int,
    settings: Settings,
    damping: float = DAMPING[KIND_DECODER],
) -> dict[str, Option]:
    """Matrix -> its bytes and the loss that is expected there, together at most `budget`.

    Raises:
        ExportError: not even the least that each may get fits, or a method could not be probed.
    """
    weights = sum(rows * columns for rows, columns in matrices.values())
    average = 8 * budget / weights
    options: dict[str, list[Option]] = {}
    for name, shape in matrices.items():
        size = shape[0] * shape[1]
        options[name] = [
            Option(f"{method} at {8 * nbytes / size:.3g} bits", nbytes, loss**damping)
            for nbytes, loss in _sizes(method, shape, _measured(method, points, name), average, settings)
        ]
    chosen = allocated(options, budget)
    return {name: replace(option, loss=option.loss ** (1 / damping)) for name, option in chosen.items()}


def timed(
    method: str,
    matrices: Mapping[str, tuple[int, int]],
    points: Mapping[str, Points],
    nanoseconds: int,
    settings: Settings,
    damping: float = DAMPING[KIND_DECODER],
) -> dict[str, Choice]:
    """Matrix -> the base and correction for which losses are least where one token's products may take so long.

    Corrections are low rank: visiting the single weights of each row takes longer than bits of codes that win as much.

    Raises:
        ExportError: not even the fastest take as little, or a method could not be probed.
    """
    found = {
        name: {
            f"{k}": choice for k, choice in enumerate(choices(method, shape, settings, _measured(method, points, name)))
        }
        for name, shape in matrices.items()
    }
    options = {
        name: [Option(key, each.nanoseconds, each.loss**damping) for key, each in several.items()]
        for name, several in found.items()
    }
    least = sum(min(option.nbytes for option in several) for several in options.values())
    if least > nanoseconds:
        raise ExportError(
            f"the products of these matrices take at least {1e-6 * least:.2f} ms for a token, by the cost model",
            f"{1e-6 * nanoseconds:.2f} were allowed",
            "allow more",
        )
    return {name: found[name][option.name] for name, option in allocated(options, nanoseconds).items()}


def _measured(method: str, points: Mapping[str, Points], name: str) -> Points:
    if not points.get(name):
        raise ExportError(
            "a matrix must be measured before bytes are shared", f"{method} could not be tried", "allow more bytes"
        )
    return points[name]


def _sizes(
    method: str, shape: tuple[int, int], points: Points, average: float, settings: Settings
) -> list[tuple[int, float]]:
    """(bytes, loss) that a matrix may have where the average is so many bits per weight."""
    size = shape[0] * shape[1]
    if method in QUANTISING:
        found = sorted((each.nbytes, each.loss) for each in choices(method, shape, settings, points))
        within = [each for each in found if LEAST * average <= 8 * each[0] / size <= MOST * average]
        return within if within and min(within) == found[0] else [found[0], *within]
    count = max(1, math.ceil((MOST - LEAST) * average / STEP))
    levels = [average * (LEAST + (MOST - LEAST) * k / count) for k in range(count + 1)]
    return [(math.ceil(bits * size / 8), expected(points, bits, size)) for bits in levels]


def expected(points: Points, bits: float, size: int) -> float:
    """The loss at a size, from those of others: straight lines of log loss over bits."""
    known = sorted((8 * taken / size, math.log(max(loss, 1e-30))) for taken, loss in points)
    pairs = [pair for pair in pairwise(known) if pair[1][0] > pair[0][0]]
    if not pairs:
        return math.exp(known[-1][1])
    (left, low), (right, high) = next((pair for pair in pairs if bits <= pair[1][0]), pairs[-1])
    return math.exp(low + (high - low) * (bits - left) / (right - left))
