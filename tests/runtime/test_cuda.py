"""The binding of the CUDA runtime: against the real library, which here finds no driver, and against a fake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DoesNotFit, SessionError
from edgekit.runtime.cuda import Cuda, CudaError
from edgekit.runtime.cuda_library import candidates, cuda_from
from tests.runtime.fake_cuda import LAUNCH_FAILURE, NO_DRIVER, OUT_OF_MEMORY, FakeCudart
from tests.tools import lacking


@pytest.fixture(scope="module")
def real() -> Cuda:
    """libcudart itself: that it loads says that it has every function."""
    try:
        return cuda_from(list(candidates()))
    except SessionError as error:
        lacking(f"no CUDA runtime: {error.fact}")


def test_the_real_library_is_understood(real: Cuda) -> None:
    major, minor = real.runtime_version().split(".")
    assert int(major) >= 12
    assert int(minor) >= 0
    # The text is the library's own, so the number got through.
    error = real._error(2, "try")
    assert isinstance(error, DoesNotFit)
    assert "out of memory (cudaErrorMemoryAllocation)" in error.fact


def test_without_a_gpu_the_real_library_says_so(real: Cuda) -> None:
    if real.gpu() is not None:
        pytest.skip("there is a GPU")
    for call in (lambda: real.malloc(1 << 40), real.stream, real.event):
        with pytest.raises(CudaError, match="needs an NVIDIA GPU") as caught:
            call()
        assert caught.value.code in (35, 100)
        assert "(cudaErrorInsufficientDriver)" in caught.value.fact or "(cudaErrorNoDevice)" in caught.value.fact


@pytest.mark.gpu
def test_memory_and_time_on_a_real_gpu(real: Cuda) -> None:
    if real.gpu() is None:
        pytest.skip("no GPU: the CUDA runtime finds no device or no driver")
    roundtrip(real)
    elapsed(real)


def elapsed(cuda: Cuda) -> None:
    stream, first, last = cuda.stream(), cuda.event(), cuda.event()
    cuda.record(first, stream)
    cuda.record(last, stream)
    assert 0 <= cuda.elapsed_s(first, last) < 1
    for event in (first, last):
        cuda.destroy_event(event)
    cuda.destroy_stream(stream)


def test_memory_and_time_over_the_fake() -> None:
    gpu = FakeCudart()
    roundtrip(gpu.cuda())
    elapsed(gpu.cuda())
    assert not gpu.live
    assert not gpu.events
    assert not gpu.graphs
    assert not gpu.streams


def roundtrip(cuda: Cuda) -> None:
    """Rows of bytes to the GPU and back, once directly and once as a graph."""
    from edgekit.runtime.trt_memory import DeviceBuffers, Pinned

    stream = cuda.stream()
    there, back = Pinned(cuda, (4, 8), "uint8"), Pinned(cuda, (4, 3), "uint8")
    device = DeviceBuffers(cuda)
    device.allocate([32])

    def enqueue() -> None:
        cuda.fill(device.addresses[0], 7, 32, stream)
        cuda.copy(device.addresses[0], there.address, 16, stream)
        cuda.copy_rows(back.address, 3, device.addresses[0], 8, 3, 4, stream)

    there.array[:] = [[10 * r + c for c in range(8)] for r in range(4)]
    want = [[0, 1, 2], [10, 11, 12], [7, 7, 7], [7, 7, 7]]
    enqueue()
    cuda.synchronize(stream)
    assert back.array.tolist() == want
    with cuda.capturing(stream) as graph:
        enqueue()
    back.array[:] = 0
    cuda.synchronize(stream)
    assert not back.array.any(), "a captured copy does not run"
    there.array[0, 0] = 99
    cuda.launch(graph[0], stream)
    cuda.synchronize(stream)
    assert back.array.tolist() == [[99, 1, 2], *want[1:]]
    cuda.destroy_graph(graph[0])
    device.free()
    there.free()
    back.free()
    cuda.destroy_stream(stream)


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        (OUT_OF_MEMORY, DoesNotFit, "cudaErrorMemoryAllocation"),
        (LAUNCH_FAILURE, CudaError, "cudaErrorLaunchFailure"),
        (NO_DRIVER, CudaError, "cudaErrorInsufficientDriver"),
    ],
)
@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("cudaMalloc", lambda cuda, stream: cuda.malloc(8)),
        ("cudaMallocHost", lambda cuda, stream: cuda.host_malloc(8)),
        ("cudaStreamSynchronize", lambda cuda, stream: cuda.synchronize(stream)),
        ("cudaEventCreate", lambda cuda, stream: cuda.event()),
        ("cudaGraphLaunch", lambda cuda, stream: cuda.launch(1, stream)),
        ("cudaDriverGetVersion", lambda cuda, stream: cuda.driver_version()),
    ],
)
def test_every_call_is_checked(
    function: str, call: Callable[[Cuda, int], Any], code: int, kind: type[Exception], name: str
) -> None:
    gpu = FakeCudart()
    cuda = gpu.cuda()
    stream = cuda.stream()
    gpu.fail(function, code)
    with pytest.raises(kind) as caught:
        call(cuda, stream)
    assert name in str(caught.value)
    assert gpu.calls["cudaGetLastError"] == 1, "the last error is read, or the next to look takes it for its own"


def test_an_error_while_capturing_ends_the_capture() -> None:
    gpu = FakeCudart()
    cuda = gpu.cuda()
    stream = cuda.stream()
    with pytest.raises(CudaError, match="Unsupported"), cuda.capturing(stream):
        cuda.malloc(8)
    assert not gpu.graphs
    cuda.synchronize(stream)


def test_what_the_gpu_is() -> None:
    gpu = FakeCudart(compute_capability=(11, 0), memory=1000)
    cuda = gpu.cuda()
    cuda.malloc(100)
    found = cuda.gpu()
    assert found is not None
    assert (found.compute_capability, found.free_bytes, found.total_bytes) == ("110", 900, 1000)
    assert (cuda.driver_version(), cuda.runtime_version()) == ("13.0", "12.6")
    gpu.fail("cudaGetDeviceCount", NO_DRIVER)
    assert cuda.gpu() is None
    gpu.fail("cudaGetDeviceCount", LAUNCH_FAILURE)
    with pytest.raises(CudaError, match="count the GPUs"):
        cuda.gpu()


def test_the_library_is_looked_for_where_wheels_jetpack_and_the_system_have_it(tmp_path: Path) -> None:
    places = {
        "site/nvidia/cu13/lib/libcudart.so.13": True,
        "site/nvidia/cuda_runtime/lib/libcudart.so.12": True,
        "site/nvidia/cuda_runtime/lib/libcudart.so.11": False,
        "cuda/targets/aarch64-linux/lib/libcudart.so.12": True,
    }
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found = list(candidates([str(tmp_path / "site"), "/nowhere"], tmp_path / "cuda"))
    assert found == [
        str(tmp_path / "site/nvidia/cu13/lib/libcudart.so.13"),
        "libcudart.so.13",
        str(tmp_path / "site/nvidia/cuda_runtime/lib/libcudart.so.12"),
        str(tmp_path / "cuda/targets/aarch64-linux/lib/libcudart.so.12"),
        "libcudart.so.12",
    ]


def test_a_missing_library_names_what_was_tried(tmp_path: Path) -> None:
    broken = tmp_path / "libcudart.so.13"
    broken.write_text("no library")
    with pytest.raises(SessionError, match="CUDA runtime") as caught:
        cuda_from([str(broken), "libcudart.so.99", "libm.so.6"])
    assert str(broken) in caught.value.fact
    assert "libcudart.so.99" in caught.value.fact
    assert "cudaMalloc" in caught.value.fact, "a library that lacks the functions is none"
    assert "nvidia-cuda-runtime" in caught.value.next_step
