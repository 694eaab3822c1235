"""What edgekit says about a real GPU: CUDA's binding, telemetry, `edgekit devices probe` and `edgekit doctor`.

Expected values come from nvidia-smi, the driver's own program, and from arithmetic.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.device.nvml import NvmlSource, NvmlUnavailable
from edgekit.device.probe import probe
from edgekit.device.telemetry import Recorder
from edgekit.errors import DoesNotFit
from edgekit.runtime.cuda import Cuda, CudaError
from edgekit.runtime.trt_memory import DeviceBuffers, Pinned
from tests import gpu_tools

pytestmark = pytest.mark.gpu


@pytest.fixture
def cuda() -> Cuda:
    if (reason := gpu_tools.no_gpu()) is not None:
        pytest.skip(reason)
    return gpu_tools.cuda()


@pytest.fixture
def stream(cuda: Cuda) -> Iterator[int]:
    made = cuda.stream()
    yield made
    cuda.destroy_stream(made)


def smi(field: str) -> str:
    """What nvidia-smi says of the first GPU."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except FileNotFoundError:
        pytest.skip("no nvidia-smi (a Jetson has none): nothing to compare with")


def test_what_the_gpu_is(cuda: Cuda) -> None:
    found = gpu_tools.gpu()
    assert found.compute_capability == smi("compute_cap").replace(".", "")
    # CUDA leaves out what the driver keeps for itself, nvidia-smi's total does too or not by its version.
    assert 0.95 < found.total_bytes / (int(smi("memory.total")) * 2**20) <= 1.0
    assert 0 < found.free_bytes <= found.total_bytes
    driver, runtime = cuda.driver_version(), cuda.runtime_version()
    assert driver is not None
    assert int(driver.split(".")[0]) >= int(runtime.split(".")[0])


def test_bytes_come_back_as_they_went(cuda: Cuda, stream: int) -> None:
    count = (64 << 20) + 3
    there, back = Pinned(cuda, (count,), np.uint8), Pinned(cuda, (count,), np.uint8)
    there.array[...] = np.random.default_rng(1).integers(0, 256, count, np.uint8)
    buffers = DeviceBuffers(cuda)
    buffers.allocate([count, count])
    first, second = buffers.addresses
    cuda.copy(first, there.address, count, stream)
    cuda.copy(second, first, count, stream)
    cuda.copy(back.address, second, count, stream)
    cuda.synchronize(stream)
    assert np.array_equal(there.array, back.array)
    buffers.free()
    there.free()
    back.free()


def test_rows_and_fills(cuda: Cuda, stream: int) -> None:
    """Rows 7 bytes wide, 10 apart, into rows 16 apart, on a ground of 0xAB."""
    there, back = Pinned(cuda, (5, 10), np.uint8), Pinned(cuda, (5, 16), np.uint8)
    there.array[...] = np.arange(50, dtype=np.uint8).reshape(5, 10)
    target = cuda.malloc(80)
    cuda.fill(target, 0xAB, 80, stream)
    cuda.copy_rows(target, 16, there.address, 10, 7, 5, stream)
    cuda.copy(back.address, target, 80, stream)
    cuda.synchronize(stream)
    expected = np.full((5, 16), 0xAB, np.uint8)
    expected[:, :7] = there.array[:, :7]
    assert np.array_equal(back.array, expected)
    cuda.free(target)
    there.free()
    back.free()


def test_events_time_a_copy_plausibly(cuda: Cuda, stream: int) -> None:
    """Copies within the GPU, by its events and by the host's clock around them."""
    size, rounds = 256 << 20, 20
    buffers = DeviceBuffers(cuda)
    buffers.allocate([size, size])
    first, last = cuda.event(), cuda.event()
    cuda.copy(buffers.addresses[1], buffers.addresses[0], size, stream)
    cuda.synchronize(stream)
    started = time.perf_counter()
    cuda.record(first, stream)
    for _ in range(rounds):
        cuda.copy(buffers.addresses[1], buffers.addresses[0], size, stream)
    cuda.record(last, stream)
    elapsed = cuda.elapsed_s(first, last)
    host = time.perf_counter() - started
    assert 0 < elapsed <= host
    # No GPU's memory reaches 50 TB/s, and one below 5 GB/s would be a processor's.
    assert 5e9 < 2 * size * rounds / elapsed < 50e12
    cuda.destroy_event(first)
    cuda.destroy_event(last)
    buffers.free()


def test_a_graph_repeats_what_was_captured(cuda: Cuda, stream: int) -> None:
    """The source changes between launches: the graph holds the work, not the data."""
    source, target = Pinned(cuda, (1000,), np.uint8), Pinned(cuda, (1000,), np.uint8)
    device = cuda.malloc(1000)
    with cuda.capturing(stream) as captured:
        cuda.copy(device, source.address, 1000, stream)
        cuda.copy(target.address, device, 1000, stream)
    target.array[...] = 0
    for value in (3, 9):
        source.array[...] = value
        cuda.launch(captured[0], stream)
        cuda.synchronize(stream)
        assert (target.array == value).all()
    cuda.destroy_graph(captured[0])
    cuda.free(device)
    source.free()
    target.free()


def test_an_error_in_a_capture_leaves_the_stream_usable(cuda: Cuda, stream: int) -> None:
    with pytest.raises(ZeroDivisionError), cuda.capturing(stream):
        raise ZeroDivisionError
    cuda.synchronize(stream)
    with cuda.capturing(stream) as captured:
        pass
    cuda.destroy_graph(captured[0])


def test_too_much_memory_is_refused_and_nothing_is_left(cuda: Cuda) -> None:
    before = gpu_tools.cuda().gpu()
    assert before is not None
    buffers = DeviceBuffers(cuda)
    with pytest.raises(DoesNotFit, match="memory"):
        buffers.allocate([1 << 20, before.total_bytes * 2])
    assert buffers.addresses == []
    # The refusal is not found again by the next call.
    cuda.free(cuda.malloc(1))


def test_an_invalid_call_is_an_error_with_its_number(cuda: Cuda, stream: int) -> None:
    with pytest.raises(CudaError) as caught:
        cuda.copy_rows(0, 1, 0, 1, 2, 1, stream)  # rows wider than their pitch
    assert caught.value.code in (1, 12)  # cudaErrorInvalidValue, cudaErrorInvalidPitchValue
    cuda.synchronize(stream)


def test_nvml_agrees_with_nvidia_smi(cuda: Cuda) -> None:
    try:
        source = NvmlSource()
    except NvmlUnavailable as reason:
        pytest.skip(str(reason))
    reading = source.read()
    assert source.name == f"NVML, {smi('name')}"
    assert reading.power_w is not None
    assert 1 < reading.power_w < 1500
    assert reading.temperature_c is not None
    assert abs(reading.temperature_c - float(smi("temperature.gpu"))) <= 8
    assert reading.gpu_clock_hz is not None
    assert reading.gpu_clock_hz <= float(smi("clocks.max.sm")) * 1e6
    assert reading.memory_used_bytes is not None
    assert 0 < reading.memory_used_bytes < int(smi("memory.total")) * 2**20
    assert reading.busy is not None
    assert 0 <= reading.busy <= 1
    source.close()


def test_telemetry_while_the_gpu_works(cuda: Cuda, stream: int) -> None:
    buffers = DeviceBuffers(cuda)
    buffers.allocate([256 << 20, 256 << 20])
    with Recorder(interval_s=0.05) as recorder:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            for _ in range(20):
                cuda.copy(buffers.addresses[1], buffers.addresses[0], 256 << 20, stream)
            cuda.synchronize(stream)
    buffers.free()
    told = recorder.telemetry
    if told.missing:
        pytest.skip(told.missing)
    assert told.readings >= 10
    assert told.energy_j is not None
    assert told.mean_power_w is not None
    assert told.peak_power_w is not None
    assert told.energy_j == pytest.approx(told.mean_power_w * told.seconds, rel=0.05)
    assert told.peak_power_w >= told.mean_power_w * 0.99
    assert told.peak_memory_used_bytes is not None
    assert told.peak_memory_used_bytes >= 512 << 20


def test_the_probe_and_the_doctor_name_it(cuda: Cuda) -> None:
    name, total = smi("name"), int(smi("memory.total"))
    device = probe()[0]
    assert device.kind == "gpu"
    assert device.name == name
    assert device.facts["compute capability"] == gpu_tools.gpu().compute_capability
    assert device.facts["driver"] == smi("driver_version")
    if device.profile is not None:
        assert name in device.profile.reported_names
        assert device.profile.compute_capability == gpu_tools.gpu().compute_capability
        assert total * 2**20 <= device.profile.memory_bytes

    from edgekit.cli import doctor

    result = CliRunner().invoke(doctor.command, ["--json"], catch_exceptions=False)
    assert result.exit_code == 0
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings[name]["status"] == "ok"
    assert "NVIDIA GPU" not in findings
    known = findings["known device"]
    assert device.profile is None or known["value"].startswith(device.profile.name)
