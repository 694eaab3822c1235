"""A stand-in for a GPU with the operators' kernels: FakeCudart, and the CUDA source compiled for the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from edgekit.runtime.cuda import Gpu
from tests import gpu_tools
from tests.plugins import device_kernels, host_library
from tests.plugins.device_library import _array
from tests.plugins.device_library import prepared as real_prepared
from tests.plugins.host_library import ELEMENTS
from tests.runtime.fake_cuda import FakeCudart


class _OnDevice:
    """Entries of device_test.cpp over those of host_test.cpp, which have a workspace of their own."""

    def edgekit_tpa_append_on_device(self, sizes: object, tensors: object, stream: int) -> int:
        return int(host_library.library("tpa_append").edgekit_tpa_append(sizes, tensors))

    def edgekit_tpa_attention_on_device(
        self, element: int, sizes: object, scales: object, tensors: object, workspace: int, stream: int
    ) -> int:
        assert workspace
        return int(host_library.library("tpa_attention").edgekit_tpa_attention(element, sizes, scales, tensors))

    def edgekit_tt_sparse_linear_on_device(
        self, element: int, sizes: object, tensors: object, workspace: int, stream: int
    ) -> int:
        assert workspace
        return int(host_library.library("tt_sparse_linear").edgekit_tt_sparse_linear(element, sizes, tensors))


class HostKernels:
    """What tests.plugins.device_library.Kernels is, on the CPU; with a fake, what is enqueued runs when that says."""

    def __init__(self, gpu: FakeCudart | None = None) -> None:
        self._gpu = gpu

    def problem(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> str | None:
        if stem == "tpa_append":
            return None
        function = getattr(host_library.library(stem), f"edgekit_{stem}_problem")
        said = function(ELEMENTS[dtype], _array(stem, sizes))
        return None if said is None else str(said.decode())

    def workspace_bytes(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> int:
        if stem != "tpa_attention":
            return 256
        return int(host_library.library(stem).edgekit_tpa_attention_workspace(ELEMENTS[dtype], _array(stem, sizes)))

    def launch(
        self,
        stem: str,
        dtype: str,
        sizes: Mapping[str, int],
        addresses: Mapping[str, int],
        *,
        stream: int,
        workspace: int = 0,
        scales: Sequence[float] = (1.0, 1.0),
    ) -> int:
        call = real_prepared(_OnDevice(), stem, dtype, sizes, addresses, workspace, scales)
        if self._gpu is None:
            return int(call(stream))
        assert stream in self._gpu.streams

        def work() -> None:
            assert call(stream) == 0

        self._gpu.enqueue(work)
        return 0


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    """Makes tests.plugins.device_kernels run on the CPU."""
    if (reason := host_library.missing_compiler()) is not None:
        pytest.skip(reason)
    gpu = FakeCudart()
    monkeypatch.setattr(gpu_tools, "cuda", gpu.cuda)
    monkeypatch.setattr(gpu_tools, "gpu", lambda: Gpu("89", 1 << 30, 1 << 30))
    monkeypatch.setattr(device_kernels, "Kernels", lambda capability: HostKernels(gpu))
    monkeypatch.setattr(device_kernels, "multiprocessors", lambda cuda: 2)
    return gpu
