"""Training draft heads on a feature cache: the loop, its course, and when it stops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgekit.draft.batches import Frozen, WindowSource, places, stacked
from edgekit.draft.loss import balance, mixture_loss
from edgekit.draft.measure import Quality, quality
from edgekit.draft.tokens import Student

#: One row in so many is kept back from training, at least one.
HELD_OUT_EVERY = 16
#: Windows of the held-out rows that are measured, spread evenly.
_MEASURED = 64
_WARMUP = 30


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: over the text, for each rank that is trained.
        windows: windows of a step.
        rate: largest step of AdamW; it rises, then falls along a cosine.
        beta: share of the model's distributions beside the text's own tokens.
        decay: weight of each drafted token relative to the one before it.
        balance: weight of the load balance.
        patience: measurements without a better held-out loss after which training stops.
        measure_every: steps from one measurement to the next.
        seed: of everything drawn.
        compute: "float32", or "bfloat16" for the operands of products; what is trained stays float32.
    """

    epochs: float = 2.0
    windows: int = 16
    rate: float = 2e-3
    beta: float = 0.9
    decay: float = 0.8
    balance: float = 0.01
    patience: int = 4
    measure_every: int = 50
    seed: int = 0
    compute: str = "float32"


@dataclass
class Course:
    """Where a training stands: enough to go on exactly."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    optimizer: dict[str, Any] | None = None
    best_weights: dict[str, Any] | None = None
    finished: bool = False


def steps_of(windows: int, options: TrainOptions) -> int:
    """Steps that the epochs over so many windows take."""
    return max(1, round(options.epochs * windows / options.windows))


def windows_of(
    source: WindowSource, tokens: int, skip: int, measured: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Windows (row, start) to train on, and those of the rows kept back; int64 [w, 2] each.

    Args:
        tokens: n.
        skip: first tokens of each row that are never trained on.
        measured: rows, the first ones, some of which are kept back.
    """
    rows, length = source.tokens.shape
    held = np.arange(0, measured, HELD_OUT_EVERY)
    trained = np.setdiff1d(np.arange(rows), held)
    found = [places(some, length, tokens, skip, source.size) for some in (trained, held)]
    return found[0], found[1]


def train_heads(
    student: Student,
    source: WindowSource,
    frozen: Frozen,
    options: TrainOptions,
    course: Course,
    *,
    skip: int = 0,
    measured: int | None = None,
    save: Callable[[], None] = lambda: None,
    advance: Callable[[int], None] = lambda count: None,
    stop: Callable[[], bool] = lambda: False,
    save_every_s: float = 120.0,
) -> None:
    """Train in place; at the end the heads are the best ones measured.

    Args:
        course: changed in place; one that was saved goes on.
        skip, measured: see `windows_of`; None for all rows.
        save: called about every `save_every_s` seconds, when course and heads belong together.
        advance: called with the steps done, those of an earlier run first.
        stop: asked after each step; True ends before the last step, to go on another time.
    """
    config, rows = student.heads.config, len(source.tokens) if measured is None else measured
    windows, held = windows_of(source, config.tokens, skip, rows)
    held = held[np.unique(np.linspace(0, len(held) - 1, min(len(held), _MEASURED)).astype(int))]
    steps = steps_of(len(windows), options)
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.rate, betas=(0.9, 0.95), weight_decay=0.01)
    if course.optimizer is not None:
        optimizer.load_state_dict(course.optimizer)
    advance(course.step)
    saved = time.monotonic()
    # Probabilities far below 1e-38, of which there are many at first, would slow every product with them.
    torch.set_flush_denormal(True)
    while course.step < steps and not course.finished:
        if course.step % options.measure_every == 0:
            _measure(student, source, frozen, held, course)
            course.finished = course.step > course.best_step + options.patience * options.measure_every
            if course.finished:
                break
        batch = _batch(windows, course.step, options)
        loss = _step(student, source, frozen, batch, options, optimizer, steps, course)
        course.losses.append((course.step, loss))
        course.step += 1
        advance(1)
        if time.monotonic() - saved > save_every_s or stop():
            course.optimizer = optimizer.state_dict()
            save()
            saved = time.monotonic()
        if stop():
            return
    if course.step == steps:
        _measure(student, source, frozen, held, course)
    course.finished = True
    if course.best_weights is not None:
        student.load_state_dict(course.best_weights)
    course.optimizer = None
    save()


def _batch(windows: npt.NDArray[np.int64], step: int, options: TrainOptions) -> npt.NDArray[np.int64]:
    """The windows of a step, in an order that depends on the epoch alone, so that a resumed run goes on alike."""
    found = []
    for index in range(step * options.windows, (step + 1) * options.windows):
        epoch, place = divmod(index, len(windows))
        order = np.random.default_rng((options.seed, epoch)).permutation(len(windows))
        found.append(windows[order[place]])
    return np.stack(found)


def _step(
    student: Student,
    source: WindowSource,
    frozen: Frozen,
    batch: npt.NDArray[np.int64],
    options: TrainOptions,
    optimizer: torch.optim.Optimizer,
    steps: int,
    course: Course,
) -> float:
    """One step of AdamW; gives the mean loss per position."""
    fraction = course.step / steps
    rate = options.rate * min(1.0, (course.step + 1) / _WARMUP) * (0.05 + 0.475 * (1 + math.cos(math.pi * fraction)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    config, device = student.heads.config, frozen.unembedding.device
    found = list(source.windows(frozen, batch, config.tokens, options.decay, config.window))
    narrow = frozen.unembedding.dtype == torch.bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        log_w, v = student(*stacked(found, frozen.states))
    total = torch.zeros((), device=device)
    for index, window in enumerate(found):
        own = slice(index * source.size, (index + 1) * source.size)
        total = total + mixture_loss(v[own], log_w[own], frozen.unembedding, window.targets, options.beta)
    loss = total / len(v)
    optimizer.zero_grad()
    even = options.balance * balance(log_w) if config.rank > 1 else 0.0
    (loss + even).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _measure(
    student: Student,
    source: WindowSource,
    frozen: Frozen,
    held: npt.NDArray[np.int64],
    course: Course,
) -> Quality:
    """Measure on the held-out windows, and keep the weights if they are the best so far."""
    config = student.heads.config
    found: Quality = quality(student, frozen, source.windows(frozen, held, config.tokens, 1.0, config.window))
    loss = sum(found.nats) / len(found.nats)
    course.measured.append({"step": course.step, "loss": loss, **asdict(found)})
    if loss < course.best:
        course.best, course.best_step = loss, course.step
        course.best_weights = {name: value.clone() for name, value in student.state_dict().items()}
    return found
