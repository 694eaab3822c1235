"""The CUDA kernels on a real GPU, compiled by nvcc and called without TensorRT. Skipped where there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.ops.spec import OpSpec
from tests import gpu_tools

NAME = "cuda"
DTYPES = ("float32", "float16", "bfloat16")
MARKS = (pytest.mark.gpu,)


def available() -> str | None:
    """Why this backend cannot run here, or None. Kernels that do not compile are no reason: they fail in `run`."""
    return gpu_tools.no_kernels()


def run(
    spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray], in_place: bool
) -> dict[str, np.ndarray]:
    """Outputs by name; several splits even at a test's short lengths."""
    from tests.plugins import device_kernels

    return device_kernels.run(spec.stem, attributes, inputs, in_place=in_place, splits=3)
