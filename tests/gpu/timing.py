"""Time the operators' CUDA kernels on this machine's GPU, without TensorRT; one JSON on stdout or in a file.

usage: python -m tests.gpu.timing [-o FILE] [--seconds 60] [--repetitions 30]

Each row is compared with the float64 reference, then timed: calls over rotating sets of operands are captured in a CUDA
graph, whose replays are timed with CUDA events; a call's time is a replay's over the number of its calls, with the
median and the 10th and 90th percentile of the replays. Before the first replay the answers are made NaN, after the last
they are compared once more. torch's own operators are timed in the same way. Rows that no
time is left for are listed as not run. The file is written anew after each row.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.device.host import output
from edgekit.device.nvidia_smi import COMMAND, listed_gpus
from edgekit.device.nvml import NvmlSource, NvmlUnavailable
from edgekit.device.telemetry import Recorder
from edgekit.errors import EdgekitError
from edgekit.files import atomic_write
from tests import gpu_tools
from tests.gpu.timed_append import Append
from tests.gpu.timed_attention import Attention
from tests.gpu.timed_linear import Linear
from tests.gpu.timed_rows import all_work
from tests.plugins.device_library import library, prepared

#: A replay has at least this many calls, so that what begins and ends it does not count.
LEAST_CALLS = 20
#: A replay takes no longer, where fewer sets than there are still rotate; nor do all replays of a row.
MOST_REPLAY_S, MOST_REPLAYS_S = 0.02, 0.4
WARM_S = 0.02
COPY_BYTES = 2 << 30


class GpuMachine:
    """The GPU, by torch's memory and streams."""

    device = "cuda"

    def __init__(self, repetitions: int) -> None:
        facts = torch.cuda.get_device_properties(0)
        self.cache_bytes, self.multiprocessors = int(facts.L2_cache_size), int(facts.multi_processor_count)
        self._capability = f"{facts.major}{facts.minor}"
        self._kernels = gpu_tools.kernels()
        self._repetitions = repetitions
        self._stream = torch.cuda.Stream()

    def problem(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> str | None:
        return self._kernels.problem(stem, dtype, sizes)

    def workspace_bytes(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> int:
        return self._kernels.workspace_bytes(stem, dtype, sizes)

    def call(
        self,
        stem: str,
        dtype: str,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Tensor],
        workspace: Tensor,
        scales: tuple[float, float],
    ) -> Callable[[], None]:
        for name, tensor in tensors.items():
            assert tensor.is_contiguous(), name
            assert tensor.is_cuda, name
        addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        launch = prepared(library(stem, self._capability), stem, dtype, sizes, addresses, workspace.data_ptr(), scales)

        def enqueue(alive: Any = (tensors, workspace)) -> None:  # the call knows addresses only
            status = launch(torch.cuda.current_stream().cuda_stream)
            if status != 0:
                raise gpu_tools.cuda()._error(status, f"launch {stem}")

        return enqueue

    def once(self, calls: Iterable[Callable[[], Any]]) -> None:
        """Run each, and wait."""
        torch.cuda.synchronize()  # operands are made in another stream
        with torch.cuda.stream(self._stream):
            for call in calls:
                call()
        torch.cuda.synchronize()

    def seconds(self, calls: list[Callable[[], Any]], spoil: Callable[[], None] | None = None) -> dict[str, float]:
        """Of one call: median, percentiles, and how many calls a replay had.

        Args:
            spoil: destroys what the calls before the replays left.
        """
        self.once(calls[:3])
        started = time.monotonic()
        self.once(calls[:3])
        estimate = (time.monotonic() - started) / min(3, len(calls))
        calls = rotation(calls, estimate)
        rounds = -(-LEAST_CALLS // len(calls)) if LEAST_CALLS * estimate < MOST_REPLAY_S else 1
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                for _ in range(rounds):
                    for call in calls:
                        call()
            finally:
                graph.capture_end()
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if spoil is not None:
                spoil()
            replays, started = 0, time.monotonic()
            while replays == 0 or time.monotonic() < started + WARM_S:
                graph.replay()
                self._stream.synchronize()
                replays += 1
            each = (time.monotonic() - started) / replays
            times = []
            for _ in range(max(5, min(self._repetitions, int(MOST_REPLAYS_S / each)))):
                first.record(self._stream)
                graph.replay()
                last.record(self._stream)
                last.synchronize()
                times.append(first.elapsed_time(last) / 1e3 / (rounds * len(calls)))
        torch.cuda.synchronize()
        return {**spread(times), "calls": rounds * len(calls), "replays": len(times)}

    def forget(self) -> None:
        """Give the memory of a row back."""
        gc.collect()
        torch.cuda.empty_cache()


def rotation(calls: list[Callable[[], Any]], seconds: float) -> list[Callable[[], Any]]:
    """As many calls as a replay has time for: the first ones and the last.

    The last stays the last, because all but the first leave their answers in one place, which is compared with the
    reference of the last set.
    """
    count = max(2, int(MOST_REPLAY_S / seconds))
    return calls if len(calls) <= count else [*calls[: count - 1], calls[-1]]


def spread(times: list[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    low, middle, high = np.percentile(times, (10, 50, 90))
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def copy_bandwidth(machine: Any, size: int = COPY_BYTES) -> dict[str, Any]:
    """Bytes read and written per second by a large copy within the device's memory."""
    source = torch.randint(0, 255, (size,), device=machine.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    machine.once([lambda: target.copy_(source)])
    if not torch.equal(source, target):
        raise RuntimeError("a copy within the device's memory went wrong")
    seconds = machine.seconds([lambda: target.copy_(source)])
    return {"bytes_copied": size, "seconds": seconds, "bytes_per_s": 2 * size / seconds["median"]}


def row_of(work: Attention | Linear | Append, machine: Any, copy_bytes_per_s: float) -> dict[str, Any]:
    """One row: checked, timed, and compared. A wrong answer has no speed."""
    row: dict[str, Any] = {"operator": work.stem, "name": work.name, "shape": asdict(work)}
    ready = work.prepare(machine)
    machine.once([ready.calls[0], ready.calls[-1]])
    error, cosine = ready.check()
    row |= {"error": error, "one_minus_cosine": cosine, "tolerance": asdict(ready.tolerance), **ready.facts}
    if not (error <= ready.tolerance.maximum and cosine <= ready.tolerance.cosine):
        return row | {"failure": f"differs from the reference: error {error:.2e}, 1 - cosine {cosine:.2e}"}
    seconds = machine.seconds(ready.calls, ready.spoil)
    rate = ready.bytes_moved / seconds["median"]
    row |= {"seconds": seconds, "bytes_moved": ready.bytes_moved, "bytes_per_s": rate}
    row["of_copy_bandwidth"] = rate / copy_bytes_per_s
    if ready.operations:
        row["operations_per_s"] = ready.operations / seconds["median"]
    row["baselines"] = []
    for name, calls, moved in ready.baselines:
        machine.once([calls[0], calls[-1]])
        taken = machine.seconds(calls)
        entry = {"name": name, "seconds": taken, "bytes_moved": moved, "bytes_per_s": moved / taken["median"]}
        entry |= {"sets": len(calls), "times_faster": taken["median"] / seconds["median"]}
        row["baselines"].append(entry)
    # Once more after all of it: that the replays left right answers too.
    error, cosine = ready.check()
    if not (error <= ready.tolerance.maximum and cosine <= ready.tolerance.cosine):
        row["failure"] = f"the answers changed while it was timed: error {error:.2e}, 1 - cosine {cosine:.2e}"
    return row


def gpu_facts() -> dict[str, Any]:
    """Name, driver, and a look at clocks, power and temperature."""
    listed = listed_gpus(output(list(COMMAND)) or "")
    found: dict[str, Any] = {"gpu": asdict(listed[0]) if listed else None}
    try:
        source = NvmlSource()
        found["reading"] = asdict(source.read())
        source.close()
    except NvmlUnavailable as reason:
        found["reading"] = {"missing": str(reason)}
    return found


def timings(
    machine: Any,
    works: Iterable[Attention | Linear | Append],
    *,
    until: float,
    copy_size: int = COPY_BYTES,
    wrote: Callable[[dict[str, Any]], None] = lambda document: None,
) -> dict[str, Any]:
    """Everything that is timed, for JSON.

    Args:
        until: on the monotonic clock; rows after it are not run.
        wrote: called with what there is so far after each row.
    """
    document: dict[str, Any] = {"torch": torch.__version__, "cache_bytes": machine.cache_bytes, "before": gpu_facts()}
    document |= {"multiprocessors": machine.multiprocessors, "rows": [], "not_run": []}
    with Recorder() as recorder:
        document["copy"] = copy_bandwidth(machine, copy_size)
        machine.forget()
        for work in works:
            if time.monotonic() > until:
                document["not_run"].append({"operator": work.stem, "name": work.name, "shape": asdict(work)})
                continue
            started = time.monotonic()
            try:
                row = row_of(work, machine, document["copy"]["bytes_per_s"])
            except (EdgekitError, RuntimeError) as error:  # torch's errors of a GPU are RuntimeErrors
                row = {"operator": work.stem, "name": work.name, "shape": asdict(work), "failure": words(error)}
            row["took_s"] = round(time.monotonic() - started, 3)
            document["rows"].append(row)
            print(line_of(row), file=sys.stderr, flush=True)
            wrote(document)
            machine.forget()
    document["telemetry"] = asdict(recorder.telemetry)
    document["after"] = gpu_facts()
    return document


def words(error: Exception) -> str:
    if isinstance(error, EdgekitError):
        return "; ".join(part for part in (error.rule, error.fact, error.next_step) if part)
    return f"{type(error).__name__}: {error}"[:1000]


def line_of(row: dict[str, Any]) -> str:
    shape = row["shape"]
    sizes = ", ".join(
        f"{name} {shape[name]}" for name in ("batch", "new", "context", "tokens", "dtype") if name in shape
    )
    head = f"{row['operator']} {row['name']}, {sizes}:"
    if "failure" in row:
        return f"{head} {row['failure']}"
    text = f"{head} {row['seconds']['median'] * 1e6:.1f} us, {row['bytes_per_s'] / 1e9:.0f} GB/s"
    return text + "".join(f", {each['seconds']['median'] * 1e6:.1f} us {each['name']}" for each in row["baselines"])


def no_timing() -> str | None:
    """Why nothing can be timed here, or None."""
    if (reason := gpu_tools.no_kernels()) is not None:
        return reason
    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU; its CUDA build is needed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="rows after this time are not run")
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    if (reason := no_timing()) is not None:
        print(f"nothing was timed: {reason}", file=sys.stderr)
        return 1

    def wrote(document: dict[str, Any]) -> None:
        if arguments.output:
            atomic_write(arguments.output, json.dumps(document, indent=1) + "\n")

    torch.manual_seed(0)
    document = timings(GpuMachine(arguments.repetitions), all_work(), until=until, wrote=wrote)
    wrote(document)
    if not arguments.output:
        print(json.dumps(document, indent=1))
    return 1 if any("failure" in row for row in document["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
