"""Perplexity: its value, its error, and that an interrupted measurement ends with the same bits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import EdgekitError
from edgekit.evaluate.perplexity import EncodedText, Perplexity, compared, measure, summarised, windows_of
from edgekit.evaluate.progress_file import ProgressFile
from edgekit.evaluate.windows import WindowPlan
from edgekit.progress import SilentProgress
from tests.runtime.fake_sessions import HashSession

PLAN = WindowPlan(16, 16)
TEXT = EncodedText("text", np.random.default_rng(0).integers(0, 50, 400).tolist(), bytes=1000, sha256="0" * 64)


class Uniform(HashSession):
    """Every token is as likely as any other."""

    def row(self) -> np.ndarray:
        return np.full(self.vocab, 3.5, np.float32)


class Stops(HashSession):
    """Fails after some windows, as a killed process would."""

    def __init__(self, resets: int) -> None:
        super().__init__()
        self.left = resets

    def reset(self) -> None:
        super().reset()
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_uniform_distribution_has_the_perplexity_of_its_size() -> None:
    result = measure(Uniform, TEXT, PLAN)
    assert result.perplexity == pytest.approx(50, rel=1e-6)
    assert result.standard_error == pytest.approx(0, abs=1e-4)
    assert result.tokens == 25 * 15
    assert result.nats == pytest.approx(375 * math.log(50), rel=1e-6)
    # log2(50) bits a token, 400 tokens for 1000 bytes.
    assert result.bits_per_byte == pytest.approx(math.log2(50) * 0.4, rel=1e-6)


def test_the_standard_error_is_that_of_the_spread_between_windows() -> None:
    """Against many repetitions of the experiment it stands for."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        counts = rng.integers(5, 15, 60)
        sums = [float(rng.normal(2.0, 0.5) * count) for count in counts]
        result = summarised(list(zip(sums, counts.tolist(), strict=True)), TEXT)
        means.append(math.log(result.perplexity))
        assert result.standard_error is not None
        errors.append(result.standard_error / result.perplexity)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_a_single_window_has_no_error() -> None:
    assert measure(Uniform, TEXT, PLAN, max_windows=1).standard_error is None


def result_of(sums: list[float]) -> Perplexity:
    return summarised([(nats, 10) for nats in sums], TEXT)


def test_comparison_is_paired() -> None:
    """Windows differ a lot among each other, the two models by the same 0.01 nats per token in each."""
    reference = result_of([10.0, 30.0, 20.0])
    found = result_of([10.1, 30.1, 20.1])
    ratio = compared(found, reference)
    assert ratio.ratio == pytest.approx(math.exp(0.01))
    assert ratio.standard_error == pytest.approx(0.0, abs=1e-9)
    assert compared(result_of([10.0, 30.3, 20.0]), reference).standard_error == pytest.approx(math.exp(0.01) * 0.01)
    with pytest.raises(ValueError, match="different windows"):
        compared(found, result_of([1.0]))


def test_the_session_is_closed_and_not_opened_when_all_is_measured(tmp_path: Path) -> None:
    opened: list[HashSession] = []

    def open_session() -> HashSession:
        opened.append(HashSession())
        return opened[-1]

    first = measure(open_session, TEXT, PLAN, file=ProgressFile({"a": 1}, tmp_path))
    assert opened[0].length == 0
    file = ProgressFile({"a": 1}, tmp_path)
    file.load()
    assert measure(open_session, TEXT, PLAN, file=file) == first
    assert len(opened) == 1


@pytest.mark.parametrize("windows", [0, 1, 7, 24])
def test_an_interrupted_measurement_ends_with_the_same_bits(windows: int, tmp_path: Path) -> None:
    whole = measure(HashSession, TEXT, PLAN)
    with pytest.raises(KeyboardInterrupt):
        measure(lambda: Stops(windows), TEXT, PLAN, file=ProgressFile({}, tmp_path))
    file = ProgressFile({}, tmp_path)
    file.load()
    assert len(file.sums) == windows
    session = HashSession()
    assert measure(lambda: session, TEXT, PLAN, file=file) == whole
    assert len(session.calls) == 25 - windows


def test_a_measurement_of_a_few_windows_goes_on_to_more(tmp_path: Path) -> None:
    few = measure(HashSession, TEXT, PLAN, file=ProgressFile({}, tmp_path), max_windows=3)
    file = ProgressFile({}, tmp_path)
    file.load()
    session = HashSession()
    assert measure(lambda: session, TEXT, PLAN, file=file) == measure(HashSession, TEXT, PLAN)
    assert len(session.calls) == 22
    file.load()
    assert measure(HashSession, TEXT, PLAN, file=file, max_windows=3) == few


def test_another_key_is_another_measurement(tmp_path: Path) -> None:
    measure(HashSession, TEXT, PLAN, file=ProgressFile({"threads": 1}, tmp_path))
    other = ProgressFile({"threads": 2}, tmp_path)
    other.load()
    assert other.sums == []


def damaged(path: Path) -> list[Callable[[], object]]:
    """Ways in which a file can be no file of ours."""
    document = json.loads(path.read_text())
    return [
        lambda: path.write_bytes(path.read_bytes()[:-9]),
        lambda: path.write_text("[]"),
        lambda: path.write_text(json.dumps({**document, "key": {"other": 1}})),
        lambda: path.write_text(json.dumps({**document, "windows": [["x", 1]]})),
        lambda: path.write_text(json.dumps({**document, "windows": [[1.5, 1]]})),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_a_damaged_file_is_refused(kind: int, tmp_path: Path) -> None:
    file = ProgressFile({"a": 1}, tmp_path)
    measure(HashSession, TEXT, PLAN, file=file, max_windows=2)
    damaged(file.path)[kind]()
    with pytest.raises(EdgekitError, match="--restart"):
        ProgressFile({"a": 1}, tmp_path).load()


def test_the_file_is_written_while_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.evaluate.progress_file._SECONDS_BETWEEN_WRITES", 0.0)
    file = ProgressFile({}, tmp_path)
    seen: list[int] = []

    class Watch(SilentProgress):
        def advance(self, n: int = 1) -> None:
            seen.append(len(json.loads(file.path.read_text())["windows"]))

    measure(HashSession, TEXT, PLAN, file=file, max_windows=4, progress=Watch())
    assert seen == [1, 2, 3, 4]
    assert os.listdir(tmp_path) == [file.path.name]


def test_refusals() -> None:
    short = EncodedText("short.txt", [1], bytes=1, sha256="")
    with pytest.raises(EdgekitError, match=r"short\.txt holds 1"):
        windows_of(short, PLAN, None)
    with pytest.raises(EdgekitError, match="--context 64 or less"):
        measure(HashSession, TEXT, WindowPlan(65, 65))
