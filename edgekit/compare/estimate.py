"""How long a comparison will take, from a short look at each bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from edgekit.compare.quality import QualityRun
from edgekit.compare.speed import REPETITIONS, SpeedRun
from edgekit.compare.subject import Subject
from edgekit.errors import EdgekitError
from edgekit.progress import Progress
from edgekit.runtime.session import DecoderSession

Result = TypeVar("Result")
_PROMPT, _STEPS = 64, 3
#: Seconds that a process takes to start and to check its answers, on two cores of an AMD EPYC.
_START_S = 1.0
#: A token of a window in PyTorch float32 over one of the slowest bundle.
_TORCH = 1.5
#: Seconds per logit that comparing distributions takes.
_LOGIT_S = 2.5e-8


def estimated_seconds(quality: QualityRun, speed: SpeedRun, progress: Progress) -> float:
    """What is left to measure, told as a note; 0 where nothing is. A bundle that cannot be opened costs nothing."""
    windows, runs = quality.pending(), speed.pending()
    if not any(windows.values()) and not any(runs.values()):
        return 0.0
    progress.stage("estimating", len(quality.subjects.bundles), "bundles")
    total, slowest = 0.0, 0.0
    tokens = quality.plan.context
    vocabulary = quality.subjects.bundles[0].manifest.model.vocab_size
    for subject in quality.subjects.all:
        if subject.bundle is None:
            continue
        looked = _look(subject, quality)
        progress.advance()
        if looked is None:
            continue
        load_s, token_s, step_s = looked
        slowest = max(slowest, token_s)
        total += windows[subject.label] * tokens * (token_s + vocabulary * _LOGIT_S) + load_s
        pace = speed.pace
        one = pace.depth * token_s + pace.decode_tokens * step_s
        total += runs.get(subject.label, 0) * (_START_S + load_s + (REPETITIONS + 1) * one)
    reference = quality.subjects.reference
    if reference.bundle is None:
        total += windows[reference.label] * tokens * slowest * _TORCH
    progress.note(f"about {spoken(total)} as busy as this machine is now; an interrupted comparison goes on")
    return total


def told_seconds(speed: SpeedRun, seconds: Mapping[str, float], progress: Progress) -> None:
    """Tell how long timing encoders will take, from how long each took to load and embed the texts."""
    total = sum(
        runs * (_START_S + (REPETITIONS + 1) * seconds[label])
        for label, runs in speed.pending().items()
        if label in seconds
    )
    if total:
        progress.note(f"timing takes about {spoken(total)} as busy as this machine is now; if interrupted, it goes on")


def spoken(seconds: float) -> str:
    """ "40 s", "12 min", "3.1 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _look(subject: Subject, quality: QualityRun) -> tuple[float, float, float] | None:
    """Seconds to load it, and of a token in a window and of a step; None where it cannot be opened."""
    try:
        load_s, session = _timed(subject.opener(quality.engine, quality.plan.context))
    except EdgekitError:
        return None  # told when it is measured
    try:
        prompt = np.ones((1, min(_PROMPT, session.capacity - _STEPS)), np.int64)
        session.forward(prompt)
        session.reset()
        token_s, _ = _timed(lambda: session.forward(prompt))
        step_s, _ = _timed(lambda: _steps(session))
    except EdgekitError:
        return None
    finally:
        session.close()
    return load_s, token_s / prompt.shape[1], step_s / _STEPS


def _steps(session: DecoderSession) -> None:
    for _ in range(_STEPS):
        session.forward(np.ones((1, 1), np.int64))


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result
