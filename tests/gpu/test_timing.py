"""Timing of the kernels: the operands, the checks and the arithmetic, with the CPU in place of the GPU.

What only a GPU can show (capture, events, the second-level cache) runs there, as scripts/on-gpu's step `kernels`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import gpu_tools
from tests.gpu import timing
from tests.gpu.host_kernels import HostKernels
from tests.gpu.timed_append import Append
from tests.gpu.timed_attention import Attention
from tests.gpu.timed_linear import Linear
from tests.gpu.timed_rows import all_work
from tests.plugins import host_library

ROOT = Path(__file__).parents[2]
Subject = Attention | Linear | Append
SMALL: list[Subject] = [
    Attention("decode", 5, 8, (3, 2, 2), 70, batch=3),
    Attention("verify", 5, 8, (3, 2, 2), 70, batch=2, new=5, dtype="bfloat16"),
    Attention("prefill", 5, 8, (3, 2, 2), 37, new=37),
    Attention("converted", 6, 8, (1, 2, 2), 70, kv_heads=2, dense=True, dtype="float32"),
    Linear(40, 24, 6, 4, tokens=3),
    Linear(100, 40, 0, 0, tokens=2, residual=0, base_bits=3),
    Linear(128, 64, 8, 4, factor_bits=8, value_bits=8, base_bits=4, base_block=32),
    Append(2, 5, 20, batch=2),
    Append(2, 5, 20, batch=2, new=7),
    Append(2, 5, 20, batch=2, grow=True),
]
NAMES = [f"{each.stem}-{each.name}-{index}" for index, each in enumerate(SMALL)]


class CpuMachine:
    """The machine of the timing, over the kernels compiled for the CPU; calls run at once."""

    device, cache_bytes, multiprocessors = "cpu", 20_000, 2

    def __init__(self, damage: float = 0.0, estimate: float = 0.0, replays: int = 1) -> None:
        """`estimate`: seconds that a call is taken to need, by which a replay may have no time for all sets."""
        self._estimate, self._replays = estimate, replays
        self._kernels = HostKernels()
        self._damage = damage
        self.problem, self.workspace_bytes = self._kernels.problem, self._kernels.workspace_bytes

    def call(
        self,
        stem: str,
        dtype: str,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Tensor],
        workspace: Tensor,
        scales: tuple[float, float],
    ) -> Callable[[], None]:
        assert all(tensor.is_contiguous() for tensor in tensors.values())
        addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        result = next(tensors[name] for name in ("output", "y", "present") if name in tensors)

        def run() -> None:
            status = self._kernels.launch(
                stem, dtype, sizes, addresses, stream=0, workspace=workspace.data_ptr(), scales=scales
            )
            assert status == 0
            if self._damage:
                result.view(-1)[-1] += self._damage

        return run

    def once(self, calls: Iterable[Callable[[], Any]]) -> None:
        for call in calls:
            call()

    def seconds(self, calls: list[Callable[[], Any]], spoil: Callable[[], None] | None = None) -> dict[str, float]:
        self.once(calls[:3])
        if self._estimate:
            calls = timing.rotation(calls, self._estimate)
        if spoil is not None:
            spoil()
        started = time.perf_counter()
        for _ in range(self._replays):
            self.once(calls)
        return timing.spread([(time.perf_counter() - started) / len(calls)])

    def forget(self) -> None:
        return None


@pytest.fixture(autouse=True)
def compiler(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") is None and (reason := host_library.missing_compiler()) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_a_row_is_checked_and_timed(work: Subject) -> None:
    row = timing.row_of(work, CpuMachine(), 1e9)
    assert "failure" not in row, row["failure"]
    assert row["sets"] >= 2
    assert row["seconds"]["p10"] <= row["seconds"]["median"] <= row["seconds"]["p90"]
    assert row["bytes_per_s"] == pytest.approx(row["bytes_moved"] / row["seconds"]["median"])
    assert row["of_copy_bandwidth"] == pytest.approx(row["bytes_per_s"] / 1e9)
    assert row["baselines"][0]["seconds"]["median"] > 0
    assert ("operations_per_s" in row) == (work.name == "prefill")


@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_a_wrong_answer_has_no_speed(work: Subject) -> None:
    row = timing.row_of(work, CpuMachine(damage=1.0), 1e9)
    assert "differs from the reference" in row["failure"]
    assert "seconds" not in row


@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_a_replay_of_fewer_calls_than_sets_leaves_the_answers_that_are_compared(work: Subject) -> None:
    """On a GPU such rows had "changed": the last of the shortened replay was not the last set."""
    whole = len(work.prepare(CpuMachine()).calls)
    assert whole >= 3
    row = timing.row_of(work, CpuMachine(estimate=timing.MOST_REPLAY_S), 1e9)
    assert "failure" not in row, row["failure"]


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [(1.0, "ag"), (timing.MOST_REPLAY_S / 3.5, "abg"), (timing.MOST_REPLAY_S / 7.5, "abcdefg"), (1e-9, "abcdefg")],
)
def test_what_rotates_where_there_is_no_time_for_all(seconds: float, taken: str) -> None:
    said: list[str] = []
    calls = [lambda name=name: said.append(name) for name in "abcdefg"]
    for call in timing.rotation(calls, seconds):
        call()
    assert "".join(said) == taken
    assert timing.rotation(calls[:1], seconds) == calls[:1]


@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_replays_that_do_nothing_are_found(work: Subject) -> None:
    """What the calls before them left does not pass for their answers."""
    row = timing.row_of(work, CpuMachine(replays=0), 1e9)
    assert "the answers changed while it was timed: error inf" in row["failure"]


@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_a_call_that_does_nothing_is_found(work: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = CpuMachine()
    monkeypatch.setattr(machine, "call", lambda *given: lambda: None)
    row = timing.row_of(work, machine, 1e9)
    assert row["error"] == math.inf or row["error"] > row["tolerance"]["maximum"]
    assert "failure" in row


def test_every_set_is_memory_of_its_own() -> None:
    seen: list[set[int]] = []
    machine = CpuMachine()
    call = machine.call

    def watched(stem: str, dtype: str, sizes: Any, tensors: Mapping[str, Tensor], *rest: Any) -> Callable[[], None]:
        seen.append({x.data_ptr() for name, x in tensors.items() if name.startswith(("past", "a_", "b_"))})
        return call(stem, dtype, sizes, tensors, *rest)

    machine.call = watched  # type: ignore[method-assign]
    work = SMALL[0]
    ready = work.prepare(machine)
    assert len(seen) == len(ready.calls) >= 3
    assert len(set.union(*seen)) == sum(map(len, seen))
    # So many that the cache holds none of the first when all the others have run.
    assert ready.bytes_moved * (len(seen) - 1) > 2 * machine.cache_bytes


def test_bytes_are_those_of_the_documented_formula() -> None:
    """docs/kernels.md is made by scripts/kernel-resources."""
    loader = SourceFileLoader("kernel_resources", str(ROOT / "scripts" / "kernel-resources"))
    spec = spec_from_loader("kernel_resources", loader)
    assert spec is not None
    module = module_from_spec(spec)
    import sys

    sys.modules["kernel_resources"] = module
    loader.exec_module(module)
    del sys.modules["kernel_resources"]
    for work in all_work():
        if isinstance(work, Attention) and work.new == 1:
            (q, k, v), size = work.ranks, work.head_size
            flags = (0, 0, 0) if work.dense else (1, 1, 1)
            shape = module.Shape(work.name, work.heads, size, size, q, k, v, *flags)
            one = dataclasses.replace(work, batch=1)
            assert one.bytes_moved() == module.minimum_bytes(shape, work.context, 2), work


@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_bytes_are_those_of_the_operands(work: Subject) -> None:
    """Counted from the tensors that a call gets: inputs once, outputs once, in place the new rows alone."""
    given: list[Mapping[str, Tensor]] = []
    machine = CpuMachine()

    def kept(stem: str, dtype: str, sizes: Any, tensors: Mapping[str, Tensor], *rest: Any) -> Callable[[], None]:
        given.append(tensors)
        return lambda: None

    machine.call = kept  # type: ignore[method-assign]
    work.prepare(machine)
    sizes = {name: x.numel() * x.element_size() for name, x in given[0].items()}
    if isinstance(work, Append):
        moved = sizes["past"] + sizes["new"] + sizes["present"] if work.grow else 2 * sizes["new"]
    elif isinstance(work, Linear):
        moved = sum(sizes.values())
    else:
        # The tables and frequencies are left out, as in docs/kernels.md. Older rows of the cache are read, new written.
        moved = sum(sizes[n] for n in sizes if n[:2] in ("a_", "b_", "at", "ou"))
        moved += sum(sizes[n] for n in sizes if n.startswith("past"))
    assert work.bytes_moved() == moved


def test_rows_have_names_and_run_on_the_kernels() -> None:
    """No size of the table is one that a launcher refuses; on an H100's number of multiprocessors."""
    rows = list(all_work())
    assert len({(each.stem, *dataclasses.astuple(each)) for each in rows}) == len(rows) > 50
    kernels = HostKernels()
    for each in rows:
        if isinstance(each, Attention):
            dense = not each.dense
            sizes = {
                "batch": each.batch, "fresh": each.new, "total": each.context, "past_slots": each.context,
                "present_slots": each.context, "heads": each.heads, "key_size": each.head_size,
                "value_size": each.head_size, "rank_q": each.ranks[0], "rank_k": each.ranks[1],
                "rank_v": each.ranks[2], "rotary_rows": each.context, "rotary_columns": each.head_size // 2,
                "multiprocessors": 132, "splits": 0, "factored_query": dense, "contextual_key": dense,
                "contextual_value": dense,
            }  # fmt: skip
            assert kernels.problem(each.stem, each.dtype, sizes) is None


def test_the_document_says_what_was_not_run_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    documents: list[int] = []
    machine = CpuMachine()

    def wrote(document: dict[str, Any]) -> None:
        documents.append(len(document["rows"]))

    works = [SMALL[4], SMALL[7]]
    found = timing.timings(machine, works, until=time.monotonic() + 60, copy_size=1 << 16, wrote=wrote)
    assert documents == [1, 2]
    assert found["copy"]["bytes_per_s"] > 0
    assert [row["operator"] for row in found["rows"]] == ["tt_sparse_linear", "tpa_append"]
    assert found["telemetry"]["missing"] or found["telemetry"]["readings"]
    assert "us torch linear, dense" in capsys.readouterr().err
    late = timing.timings(machine, works, until=time.monotonic() - 1, copy_size=1 << 16)
    assert late["rows"] == []
    assert [row["operator"] for row in late["not_run"]] == ["tt_sparse_linear", "tpa_append"]


def test_a_row_that_fails_costs_the_others_nothing() -> None:
    broken = dataclasses.replace(SMALL[0], head_size=7)  # odd: refused
    works = [broken, SMALL[5]]
    found = timing.timings(CpuMachine(), works, until=time.monotonic() + 60, copy_size=1 << 16)
    assert "the key head size has to be even" in found["rows"][0]["failure"]
    assert "failure" not in found["rows"][1]


def test_without_a_gpu_nothing_is_timed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu_tools.no_gpu() is None:
        pytest.skip("there is a GPU")
    monkeypatch.setattr("sys.argv", ["timing"])
    assert timing.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "nothing was timed: no GPU" in said.err


@pytest.mark.gpu
@pytest.mark.parametrize("work", SMALL, ids=NAMES)
def test_a_row_on_the_gpu(work: Subject) -> None:
    """Small sizes on the real machine: capture, events and checks work."""
    if (reason := timing.no_timing()) is not None:
        pytest.skip(reason)
    row = timing.row_of(work, timing.GpuMachine(repetitions=5), 1e12)
    assert "failure" not in row, row["failure"]
    assert 0 < row["seconds"]["median"] < 1
    assert torch.cuda.is_available()
