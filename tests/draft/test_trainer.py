"""The training loop: it learns, it resumes to the same weights, it stops when nothing gets better."""

from __future__ import annotations

import math

import pytest
import torch

from edgekit.draft.batches import CachedRows
from edgekit.draft.initial import grown
from edgekit.draft.tokens import Student
from edgekit.draft.trainer import Course, TrainOptions, train_heads
from tests.draft.small import WIDTH, cache, config, fresh, frozen, student

OPTIONS = TrainOptions(epochs=12, windows=2, rate=1e-2, measure_every=10)


def test_it_learns_and_keeps_the_best() -> None:
    model, course = frozen(), Course()
    learner = fresh()
    train_heads(learner, CachedRows(cache(model)), model, OPTIONS, course)
    assert course.finished
    first, best = course.measured[0]["loss"], course.best
    assert best < first - 0.5
    assert best == min(entry["loss"] for entry in course.measured)
    assert course.best_weights is not None
    for name, value in learner.state_dict().items():
        assert torch.equal(value, course.best_weights[name]), name


def test_a_mixture_says_more_than_the_single_head_it_grew_from() -> None:
    model = frozen()
    single, course = fresh(), Course()
    train_heads(single, CachedRows(cache(model)), model, OPTIONS, course)
    mixture, after = Student(grown(single.heads, config(4), torch.ones(WIDTH), 0), single.reader), Course()
    train_heads(mixture, CachedRows(cache(model)), model, OPTIONS, after)
    assert after.measured[0]["loss"] == pytest.approx(course.best, abs=1e-4)
    assert after.best <= course.best


def test_a_run_that_was_cut_off_reaches_the_same_weights() -> None:
    model = frozen()
    whole, course = student(2), Course()
    options = TrainOptions(epochs=4, windows=2, measure_every=3, patience=99)
    train_heads(whole, CachedRows(cache(model)), model, options, course)
    parts, first = student(2), Course()
    train_heads(parts, CachedRows(cache(model)), model, options, first, stop=lambda: first.step == 5)
    assert first.step == 5
    assert not first.finished
    assert first.optimizer is not None
    train_heads(parts, CachedRows(cache(model)), model, options, first)
    assert first.finished
    assert [loss for _, loss in first.losses] == [loss for _, loss in course.losses]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_it_stops_when_nothing_gets_better() -> None:
    model, course = frozen(), Course()
    options = TrainOptions(epochs=400, windows=1, rate=1e-12, measure_every=2, patience=3)
    train_heads(student(), CachedRows(cache(model)), model, options, course)
    assert course.finished
    assert course.step < 40
    assert math.isfinite(course.best)
