from __future__ import annotations

from tests.gpu.host_kernels import fake_gpu

__all__ = ["fake_gpu"]
