"""Rounds over bundles: in turns, resumed, and with one that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.benchmark.worker import Request
from edgekit.bundle import read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.compare import speed as module
from edgekit.compare.speed import Pace, SpeedRun
from edgekit.compare.subject import Engine, open_subjects
from edgekit.compare.traffic import traffic_of
from edgekit.errors import SessionError
from edgekit.progress import SilentProgress
from tests.parity.tiny_models import export, write_checkpoint

ENGINE = Engine("cpu", "auto", 1)


class Workers:
    """Counts up: the first run has rates 1 and 101, the next 2 and 102, and so on."""

    def __init__(self, failing: str = "", interrupted: int = 0) -> None:
        self.requests: list[Request] = []
        self.failing, self.interrupted = failing, interrupted

    def __call__(self, request: Request, progress: object) -> dict[str, Any]:
        self.requests.append(request)
        if len(self.requests) == self.interrupted:
            raise KeyboardInterrupt
        if Path(request.bundle).name == self.failing:
            raise SessionError("answers must be right", "they are not")
        rates = {"samples": [float(len(self.requests)), 100.0 + len(self.requests)]}
        return {
            "decodes": [{"tokens_per_s": rates}],
            "texts_per_s": rates,
            "others_cpu_share": {"mean": 0.25},
            "memory_measured": {"peak": 1000 * len(self.requests)},
            "session": "fake",
        }

    @property
    def order(self) -> list[str]:
        return [Path(request.bundle).name for request in self.requests]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(module, "run_worker", made)
    return made


def run_of(folder: Path, rounds: int = 3, *, cache: bool = True, encoders: bool = False) -> SpeedRun:
    names = ["fp32", "int8"] if encoders else ["fp32", "int8", "int4"]
    subjects = open_subjects([folder / name for name in names], None, offline=True)
    return SpeedRun(subjects.compared, encoders, Pace(rounds, 30, 5), ENGINE, cache, SilentProgress())


def test_bundles_take_turns(decoders: Path, workers: Workers) -> None:
    found = run_of(decoders).run()
    assert workers.order == ["fp32", "int8", "int4"] * 3
    assert {(r.task, r.depths, r.decode_tokens, r.threads) for r in workers.requests} == {("measure", (30,), 5, 1)}
    # fp32 ran as number 1, 4 and 7.
    assert found["fp32"]["samples"] == [1, 101, 4, 104, 7, 107]
    assert found["fp32"]["median"] == (7 + 101) / 2
    assert (found["fp32"]["min"], found["fp32"]["max"]) == (1, 107)
    assert found["int4"]["peak_memory_bytes"] == 9000
    assert found["int8"]["others_cpu_share"] == 0.25


def test_encoders_embed(encoders: Path, workers: Workers) -> None:
    assert run_of(encoders, encoders=True).run()["int8"]["samples"] == [2, 102, 4, 104, 6, 106]
    assert {(request.task, request.depths) for request in workers.requests} == {("embed", ())}


def test_an_interrupted_run_goes_on(decoders: Path, workers: Workers) -> None:
    workers.interrupted = 6
    with pytest.raises(KeyboardInterrupt):
        run_of(decoders).run()
    again = run_of(decoders)
    assert again.pending() == {"fp32": 1, "int8": 1, "int4": 2}
    found = again.run()
    assert workers.order[6:] == ["int4", "fp32", "int8", "int4"]
    assert all(speed["rounds"] == 3 for speed in found.values())
    assert run_of(decoders).run() == found
    assert len(workers.requests) == 10


def test_fewer_rounds_are_a_part_and_other_bundles_are_timed_anew(decoders: Path, workers: Workers) -> None:
    run_of(decoders).run()
    assert run_of(decoders, 2).run()["fp32"]["samples"] == [1, 101, 4, 104]
    assert len(workers.requests) == 9
    subjects = open_subjects([decoders / "fp32", decoders / "int8"], None, offline=True)
    SpeedRun(subjects.compared, False, Pace(1, 30, 5), ENGINE, True, SilentProgress()).run()
    assert len(workers.requests) == 11


def test_without_the_cache_nothing_is_kept(decoders: Path, workers: Workers, tmp_path: Path) -> None:
    run_of(decoders, 1, cache=False).run()
    assert not (tmp_path / "cache").exists()
    run_of(decoders, 1).run()
    assert len(workers.requests) == 6


def test_one_that_fails_is_not_tried_again_in_the_same_run(decoders: Path, workers: Workers) -> None:
    workers.failing = "int8"
    run = run_of(decoders)
    found = run.run()
    assert workers.order == ["fp32", "int8", "int4", "fp32", "int4", "fp32", "int4"]
    assert set(found) == {"fp32", "int4"}
    assert isinstance(run.failures["int8"], SessionError)
    workers.failing = ""
    assert run_of(decoders).pending() == {"fp32": 0, "int8": 3, "int4": 0}


def test_what_gave_wrong_answers_is_not_timed(decoders: Path, workers: Workers) -> None:
    assert set(run_of(decoders, 1).run(skip={"int8"})) == {"fp32", "int4"}
    assert workers.order == ["fp32", "int4"]


def test_a_token_reads_the_weights_but_for_tables(decoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's head is its embedding, so that all matrices are read: their sizes are in the checkpoint."""
    bundle = read_bundle(decoders / "fp32")
    found = traffic_of(bundle, 100)
    hidden, mlp, vocab = 64, 96, bundle.manifest.model.vocab_size
    layer = 2 * hidden * hidden + 2 * hidden * hidden // 2 + 3 * hidden * mlp + 2 * hidden
    numbers = 3 * layer + vocab * hidden + hidden
    assert found.exact
    assert found.weight_bytes == pytest.approx(4 * numbers, rel=0.01)
    # Keys and values of 2 heads of 16 in 3 layers, float32.
    assert found.cache_bytes == 100 * 3 * 2 * 2 * 16 * 4
    monkeypatch.setitem(sys.modules, "onnx", None)
    whole = traffic_of(bundle, 100)
    assert not whole.exact
    assert whole.weight_bytes >= found.weight_bytes


def test_an_embedding_that_is_not_the_head_is_read_by_the_row(tmp_path: Path) -> None:
    sizes = {}
    for name in ("llama", "llama-untied"):
        checkpoint = open_checkpoint(write_checkpoint(tmp_path / name, name))
        for dtype in ("fp32", "int8"):
            bundle = export(checkpoint, tmp_path / f"{name}-{dtype}", dtype=dtype)
            sizes[name, dtype] = (traffic_of(bundle, 0).weight_bytes, bundle.manifest.bytes)
    for dtype, table in (("fp32", 4 * 64), ("int8", 64)):
        (tied, tied_file), (untied, untied_file) = sizes["llama", dtype], sizes["llama-untied", dtype]
        assert untied == pytest.approx(tied, rel=0.01)
        assert untied_file > tied_file + table * 200
