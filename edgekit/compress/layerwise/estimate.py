"""What a compression will take, told before it starts, and how it is made to fit a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.checkpoint import Checkpoint
from edgekit.compress.layerwise.options import CompressOptions, Sizes, budget_of
from edgekit.errors import DoesNotFit

#: Seconds per weight, and per weight and input, of fitting a matrix [N, K] on one thread: a N K + b N K². Fitted to
#: four matrices of SmolLM2-135M on one core of an AMD EPYC; docs/compression.md has what whole models took.
FITTING = {
    "saten-augmented": (1.0e-6, 1.1e-8),
    "saten": (1.6e-6, 4.1e-9),
    "dense": (1.6e-6, 1.2e-9),
    "round": (1.2e-6, 0.0),
    "svd": (1.0e-7, 2.0e-10),
    "svd-aware": (1.0e-7, 2.0e-10),
    "tt": (2.4e-6, 0.0),
    "saten-faithful": (2.6e-6, 0.0),
}
#: Share of a fit's time that its first round takes, of four.
FIRST_ROUND = 0.57
CALIBRATION_FLOPS = 30e9
BASE_BYTES = 420 << 20
#: float64 matrices of a fit at one time, of the layer's largest matrix [N, K] and of its moments [K, K].
COPIES = 8


@dataclass(frozen=True)
class Estimate:
    """Good to a factor of two.

    Attributes:
        weight_bytes: of the new file of weights.
        work_bytes: of hidden states and measurements on the disk, gone at the end.
        memory_bytes: of all processes.
        seconds: with `rounds` of alternation.
    """

    weight_bytes: int
    work_bytes: int
    memory_bytes: int
    seconds: float
    rounds: int


def estimate(checkpoint: Checkpoint, options: CompressOptions, sizes: Sizes) -> Estimate:
    """From the checkpoint's sizes alone.

    Raises:
        DoesNotFit: not even a single round ends within `options.minutes`.
    """
    hidden, layers = int(checkpoint.config["hidden_size"]), int(checkpoint.config["num_hidden_layers"])
    tokens = options.sequences * options.length
    states = 4 * tokens * hidden
    inputs = {columns for _, columns in sizes.matrices.values()}
    moments = layers * 4 * sum(width * width for width in inputs) * 2
    layer = sizes.compressed_weights // layers
    largest = max(rows * columns + columns * columns for rows, columns in sizes.matrices.values())
    outside = max(math.prod(checkpoint.spec(name).shape) for name in checkpoint.names())
    calibrating = 4 * max(2 * outside, 3 * layer) + 4 * states
    fitting = options.workers * (BASE_BYTES + 8 * COPIES * largest)
    calibration = 8 * sizes.weights * tokens / CALIBRATION_FLOPS
    rounds = options.rounds

    def seconds(count: int) -> float:
        return 10 + calibration + fitting_seconds(options, sizes, count)

    while options.minutes is not None and rounds > 1 and seconds(rounds) > 60 * options.minutes:
        rounds -= 1
    if options.minutes is not None and seconds(rounds) > 60 * options.minutes:
        raise DoesNotFit(
            f"{options.method} of this checkpoint takes about {seconds(1) / 60:.0f} minutes at least",
            f"{options.minutes:g} were allowed",
            "allow more, use more --workers or a --scheduler, fewer --calibration-sequences, or another --method",
        )
    whole = sizes.kept_bytes + budget_of(options, sizes)
    disk = states * (layers + 3) + moments + whole
    return Estimate(whole, disk, BASE_BYTES + max(calibrating, fitting), seconds(rounds), rounds)


def fitting_seconds(options: CompressOptions, sizes: Sizes, rounds: int) -> float:
    """Of all matrices, allocation's probes included."""
    first, second = FITTING.get(options.method, FITTING["saten-augmented"])
    share = FIRST_ROUND + (1 - FIRST_ROUND) * (rounds - 1) / 3 if options.method.startswith("saten") else 1.0
    total = sum(share * r * k * (first + second * k) for r, k in sizes.matrices.values())
    if options.allocate:
        a, b = FITTING["dense"]
        total += sum(r * k * (a + b * k) for r, k in sizes.matrices.values())
    return total / options.workers
