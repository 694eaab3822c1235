"""Perplexity and KL of tiny bundles, against PyTorch's own functions; and what happens where one fails."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.bundle import read_bundle
from edgekit.compare import quality as module
from edgekit.compare import scratch
from edgekit.compare.quality import Quality, QualityRun, window_row
from edgekit.compare.subject import Engine, Subject, Subjects, open_subjects
from edgekit.errors import DoesNotFit, EdgekitError, SessionError
from edgekit.evaluate.of_bundle import perplexity_of_bundle
from edgekit.evaluate.text import encoded_text
from edgekit.evaluate.windows import plan_of, window_at, window_count
from edgekit.progress import SilentProgress
from edgekit.runtime.session import session_from_bundle

ENGINE = Engine("cpu", "auto", 1)
PLAN = plan_of(64, None, None)


class Notes(SilentProgress):
    """What was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self.stages.append(name)


def run_of(
    folder: Path,
    names: Sequence[str] = ("fp32", "int8", "int4"),
    reference: str | None = None,
    *,
    windows: int = 100,
    cache: bool = True,
    subjects: Subjects | None = None,
) -> QualityRun:
    opened = subjects or open_subjects([folder / name for name in names], reference, offline=True)
    text = encoded_text(folder / "text.txt", opened.bundles[0])
    return QualityRun(opened, text, PLAN, windows, ENGINE, cache, Notes())


def logits_of(folder: Path, name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each window the logits [K, V] of all its positions at once, and the tokens they predict."""
    bundle = read_bundle(folder / name)
    text = encoded_text(folder / "text.txt", bundle)
    session = session_from_bundle(bundle, threads=1)
    found = []
    for index in range(window_count(len(text.tokens), PLAN)):
        window = window_at(text.tokens, index, PLAN)
        session.reset()
        rows = session.forward(np.array([window.tokens[:-1]], np.int64), keep=0)[0, -window.scored :]
        found.append((torch.from_numpy(rows).double(), torch.tensor(window.tokens[-window.scored :])))
    session.close()
    return found


def test_figures_are_those_of_pytorchs_functions(decoders: Path) -> None:
    found = run_of(decoders).run()
    reference = logits_of(decoders, "fp32")
    for name in ("fp32", "int8", "int4"):
        own = logits_of(decoders, name)
        p = torch.cat([torch.log_softmax(rows, -1) for rows, _ in reference])
        q = torch.cat([torch.log_softmax(rows, -1) for rows, _ in own])
        targets = torch.cat([tokens for _, tokens in own])
        each = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
        result = found[name]
        assert result.perplexity.perplexity == pytest.approx(
            float(torch.nn.functional.nll_loss(q, targets).exp()), rel=1e-5
        )
        assert result.kl == pytest.approx(float(each.mean()), rel=1e-4, abs=1e-9)
        assert result.kl_max == pytest.approx(float(each.max()), rel=1e-4, abs=1e-9)
        assert result.top1 == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
        base = float(torch.nn.functional.nll_loss(p, targets).exp())
        assert result.ratio == pytest.approx(result.perplexity.perplexity / base, rel=1e-5)
    assert found["fp32"].kl == 0
    assert found["int8"].kl is not None
    assert found["int4"].kl is not None
    assert 0 < found["int8"].kl < found["int4"].kl


def test_perplexity_is_that_of_edgekit_eval(decoders: Path) -> None:
    bundle = read_bundle(decoders / "int8")
    text = encoded_text(decoders / "text.txt", bundle)
    expected = perplexity_of_bundle(bundle, text, PLAN, threads=1, max_windows=5)
    found = run_of(decoders, windows=5).run()["int8"].perplexity
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-12)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-9)


def test_the_error_of_kl_is_that_of_a_mean_over_windows(decoders: Path) -> None:
    """Windows of equal length: the standard error of the mean of their means."""
    run = run_of(decoders, ["fp32", "int4"], windows=7)
    found = run.run()["int4"]
    rows = run.files["int4"].rows
    assert {row[1] for row in rows} == {63}
    means = [row[2] / row[1] for row in rows]
    assert found.kl_error == pytest.approx(float(np.std(means, ddof=1)) / math.sqrt(7))


def test_a_checkpoint_is_the_reference(decoders: Path) -> None:
    found = run_of(decoders, ["fp32", "int8"], str(decoders / "checkpoint"), windows=3).run()
    assert set(found) == {"checkpoint (PyTorch)", "fp32", "int8"}
    assert found["fp32"].kl == pytest.approx(0, abs=1e-6)
    assert found["int8"].kl == pytest.approx(run_of(decoders, windows=3).run()["int8"].kl, rel=1e-2)
    assert found["fp32"].ratio == pytest.approx(1, abs=1e-5)


def test_groups_of_windows_give_the_same(decoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_of(decoders, cache=False).run()
    monkeypatch.setattr(scratch, "MOST_BYTES", 3 * 4 * 64 * read_bundle(decoders / "fp32").manifest.model.vocab_size)
    run = run_of(decoders, cache=False)
    assert run.run() == whole
    assert isinstance(run.progress, Notes)
    assert run.progress.stages.count("predicting: int8") == 3  # eight windows, three at a time


def test_finished_windows_are_not_measured_again(decoders: Path, tmp_path: Path) -> None:
    first = run_of(decoders, windows=3)
    assert max(first.pending().values()) == 3
    first.run()
    again = run_of(decoders, windows=3)
    assert not any(again.pending().values())
    assert again.run() == run_of(decoders, windows=3, cache=False).run()
    assert isinstance(again.progress, Notes)
    assert again.progress.stages == []
    # More of them go on; one bundle more has the reference's windows measured again.
    longer = run_of(decoders)
    assert set(longer.pending().values()) == {5}
    assert longer.run() == run_of(decoders, cache=False).run()
    (tmp_path / "cache" / "compare").rename(tmp_path / "away")
    run_of(decoders, ["fp32", "int8"]).run()
    assert run_of(decoders).pending() == {"fp32": 8, "int8": 0, "int4": 8}
    assert run_of(decoders).run() == longer.run()


def test_without_the_cache_nothing_is_kept(decoders: Path, tmp_path: Path) -> None:
    run_of(decoders, windows=2, cache=False).run()
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_an_interrupted_run_keeps_what_it_finished(decoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run_of(decoders, cache=False).run()
    count = 0

    def until_then(pieces: Any, theirs: Any) -> list[Any]:
        nonlocal count
        count += 1
        if count > 10:  # eight windows of int8, two of int4
            raise KeyboardInterrupt
        return window_row(pieces, theirs)

    monkeypatch.setattr(module, "window_row", until_then)
    with pytest.raises(KeyboardInterrupt):
        run_of(decoders).run()
    monkeypatch.setattr(module, "window_row", window_row)
    again = run_of(decoders)
    assert again.pending() == {"fp32": 6, "int8": 0, "int4": 6}
    assert again.run() == expected


class Broken:
    """Opens, and gives logits that are no numbers from the second window on; or fails as it is told to."""

    def __init__(self, subject: Subject, error: Exception | None = None) -> None:
        self.subject, self.error = subject, error

    def __call__(self, engine: Engine, context: int) -> Any:
        made = Subject.opener(self.subject, engine, context)

        def opened() -> Any:
            if self.error is not None:
                raise self.error
            session = made()
            forward, windows = session.forward, 0

            def wrong(tokens: Any, keep: int = 1) -> Any:
                nonlocal windows
                windows += session.length == 0
                logits = forward(tokens, keep)
                return logits * np.float32("nan") if windows > 1 else logits

            session.forward = wrong
            return session

        return opened


def broken(decoders: Path, label: str, error: Exception | None = None) -> Subjects:
    """Subjects of which one fails."""
    subjects = open_subjects([decoders / name for name in ("fp32", "int8", "int4")], None, offline=True)
    (chosen,) = (subject for subject in subjects.all if subject.label == label)
    object.__setattr__(chosen, "opener", Broken(chosen, error))
    return subjects


def test_one_that_fails_does_not_keep_the_others(decoders: Path) -> None:
    run = run_of(decoders, subjects=broken(decoders, "int8"))
    found = run.run()
    assert set(found) == {"fp32", "int4"}
    assert isinstance(run.failures["int8"], SessionError)
    assert "finite" in run.failures["int8"].rule
    assert found["int4"] == run_of(decoders, cache=False).run()["int4"]
    assert isinstance(run.progress, Notes)
    assert any("int8 was not measured" in note for note in run.progress.notes)


def test_memory_that_runs_out_is_a_failure_of_one(decoders: Path) -> None:
    run = run_of(decoders, subjects=broken(decoders, "int4", MemoryError("2 GB")))
    assert set(run.run()) == {"fp32", "int8"}
    assert isinstance(run.failures["int4"], DoesNotFit)


def test_without_the_reference_there_is_perplexity(decoders: Path) -> None:
    run = run_of(decoders, subjects=broken(decoders, "fp32", SessionError("it must load", "it does not")))
    found = run.run()
    assert set(found) == {"int8", "int4"}
    assert set(run.failures) == {"fp32"}
    for name, result in run_of(decoders, cache=False).run().items():
        if name in found:
            assert found[name] == Quality(result.perplexity)


def test_a_disk_without_room(decoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 50_000

    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(DoesNotFit, match="EDGEKIT_CACHE"):
        run_of(decoders).run()


def test_what_was_kept_must_be_whole(decoders: Path) -> None:
    run = run_of(decoders, windows=2)
    run.run()
    path = run.files["int8"].path
    assert len(json.loads(path.read_text())["rows"]) == 2
    path.write_text(path.read_text()[:-5])
    with pytest.raises(EdgekitError, match="--no-cache"):
        run_of(decoders)
    run_of(decoders, cache=False)
