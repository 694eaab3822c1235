"""The CUDA kernels' source, compiled by g++ and run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.ops.spec import OpSpec
from tests.plugins import host_library

NAME = "cuda_on_host"
DTYPES = ("float64", "float32", "float16", "bfloat16")


def available() -> str | None:
    """Why this backend cannot run here, or None."""
    return host_library.missing_compiler()


def run(
    spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray], in_place: bool
) -> dict[str, np.ndarray]:
    """Outputs by name; several splits even at a test's short lengths."""
    if spec.stem == "tpa_append":
        return {"present": host_library.tpa_append(inputs, in_place=in_place)}
    if spec.stem == "tt_sparse_linear":
        return {"y": host_library.tt_sparse_linear(attributes, inputs)}
    assert spec.stem == "tpa_attention", f"no CUDA kernel for {spec.name}"
    return host_library.tpa_attention(attributes, inputs, in_place=in_place, splits=3)
