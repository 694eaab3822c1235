"""What a compression will take, told before it starts, and how it is made to fit a time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.checkpoint import Checkpoint
from edgekit.compress.layerwise.allocate import probes
from edgekit.compress.layerwise.options import CompressOptions, Sizes, budget_of, stored_bytes_of
from edgekit.compress.layerwise.plan import Entry, Plan, settings_from
from edgekit.compress.layerwise.speed import Fit, FitTime, fit_time, products_per_s
from edgekit.compress.layerwise.stack import layer_of
from edgekit.contract import KIND_ENCODER
from edgekit.errors import DoesNotFit
from edgekit.models.registry import kind_of
from edgekit.words import counted

#: Multiply-adds of calibrating, per weight and token: forward, forward again, and twice as much backward.
CALIBRATION_PASSES = 4
#: Share of a lone product's speed that a model's passes reach, with all that is no product and the moments; and
#: seconds of reading the text and of starting processes. Measured with MiniLM and SmolLM2-135M.
CALIBRATION_SHARE, START_S = 0.6, 8.0
BASE_BYTES = 420 << 20
#: float64 matrices of a fit at one time, of the layer's largest matrix [N, K] and of its moments [K, K].
COPIES = 8


@dataclass(frozen=True)
class Estimate:
    """Good to half as much again, where nothing else runs on the machine.

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


def estimate(
    checkpoint: Checkpoint,
    options: CompressOptions,
    sizes: Sizes,
    plan: Plan | None = None,
    timed: Callable[[Fit], FitTime] = fit_time,
) -> Estimate:
    """From the checkpoint's sizes, and the time that small fits take on this machine.

    Args:
        plan: what is applied, instead of what the options ask for.
        timed: measures a kind of fit.

    Raises:
        DoesNotFit: not even a single round ends within `options.minutes`.
    """
    hidden, layers = int(checkpoint.config["hidden_size"]), int(checkpoint.config["num_hidden_layers"])
    calibration = plan.calibration if plan else {"sequences": options.sequences, "length": options.length}
    tokens = calibration["sequences"] * calibration["length"]
    states = 4 * tokens * hidden
    inputs = {columns for _, columns in sizes.matrices.values()}
    moments = layers * 4 * sum(width * width for width in inputs) * 2
    layer = sizes.compressed_weights // layers
    largest = max(rows * columns + columns * columns for rows, columns in sizes.matrices.values())
    outside = max(math.prod(checkpoint.spec(name).shape) for name in checkpoint.names())
    calibrating = 4 * max(2 * outside, 3 * layer) + 4 * states
    fitting = options.workers * (BASE_BYTES + 8 * COPIES * largest)
    # An encoder has no head; a decoder's is run once, forward and back to its input.
    head = 0 if kind_of(checkpoint.config) == KIND_ENCODER else 2 * int(checkpoint.config["vocab_size"]) * hidden
    inside = sum(math.prod(checkpoint.spec(name).shape) for name in checkpoint.names() if layer_of(name) is not None)
    products = (CALIBRATION_PASSES * inside + head) * tokens
    measuring = products / (CALIBRATION_SHARE * products_per_s(hidden))
    once, rounds_of = _fitting(options, sizes, plan, timed)
    # Layers are fitted as wholes: with three workers, four layers take as long as six.
    share = math.ceil(layers / options.workers) / layers

    def seconds(rounds: int) -> float:
        return START_S + measuring + share * (once + rounds_of(rounds))

    rounds = options.rounds if plan is None else settings_from(plan.settings).rounds
    while plan is None and options.minutes is not None and rounds > 1 and seconds(rounds) > 60 * options.minutes:
        rounds -= 1
    if options.minutes is not None and seconds(rounds) > 60 * options.minutes:
        raise DoesNotFit(
            f"{options.method} of this checkpoint takes about {counted(round(seconds(1) / 60), 'minutes')} at least",
            f"{options.minutes:g} were allowed",
            "allow more, use more --workers or a --scheduler, fewer --calibration-sequences, or another --method",
        )
    whole = sizes.kept_bytes + (budget_of(options, sizes) if plan is None else _planned_bytes(checkpoint, sizes, plan))
    disk = states * (layers + 3) + moments + whole
    return Estimate(whole, disk, BASE_BYTES + max(calibrating, fitting), seconds(rounds), rounds)


def _planned_bytes(checkpoint: Checkpoint, sizes: Sizes, plan: Plan) -> int:
    """Of all matrices of the layers: those that a plan leaves out stay as they are."""
    named = {entry.matrix for entry in plan.entries}
    return plan.nbytes + sum(stored_bytes_of(checkpoint, name) for name in sizes.matrices if name not in named)


def _fitting(
    options: CompressOptions, sizes: Sizes, plan: Plan | None, timed: Callable[[Fit], FitTime]
) -> tuple[float, Callable[[int], float]]:
    """Seconds of one thread for probes, and for all matrices by the number of rounds."""
    if plan is not None:
        whole = sum(count * timed(fit).seconds(settings_from(fit.settings).rounds) for fit, count in _of(plan, sizes))
        return whole, lambda rounds: 0.0
    bits = 8 * budget_of(options, sizes) / sizes.compressed_weights
    shapes = Counter(sizes.matrices.values())
    kinds = [(timed(Fit(options.method, shape, bits, options.settings)), count) for shape, count in shapes.items()]
    probing = 0.0
    if options.allocate:
        settings = settings_from(options.settings)
        for shape, count in shapes.items():
            for work in probes(options.method, {"": shape}, bits, settings)[""]:
                own = options.settings if work.method == options.method else {}
                fit = Fit(work.method, shape, 8 * work.nbytes / math.prod(shape), {**own, **work.settings, "rounds": 1})
                probing += count * timed(fit).first_s
    return probing, lambda rounds: sum(count * each.seconds(rounds) for each, count in kinds)


def _of(plan: Plan, sizes: Sizes) -> Iterator[tuple[Fit, int]]:
    """The kinds of fits of a plan, at the mean bits of each, and how many there are."""
    kinds: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
    for entry in plan.entries:
        settings: Mapping[str, Any] = {**plan.settings, **entry.settings}
        kinds[(entry.method, sizes.matrices[entry.matrix], str(sorted(settings.items())))].append(entry)
    for (method, shape, _), entries in kinds.items():
        bits = 8 * sum(entry.nbytes for entry in entries) / len(entries) / math.prod(shape)
        yield Fit(method, shape, bits, {**plan.settings, **entries[0].settings}), len(entries)
