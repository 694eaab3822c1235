"""Each wrong digit in a profile is found, and named by its field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgekit.device.physics import contradictions
from edgekit.device.profile import PowerMode, Software, device_profile


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("l4", {"streaming_multiprocessors": 60}, "peak_ops_per_s.fp32"),  # a figure that is often quoted
        ("l4", {"gpu_clock_hz": 2.4e9}, "peak_ops_per_s.fp32"),
        ("l4", {"peak_ops_per_s": {"fp16": 242e12}}, "peak_ops_per_s.fp16 is 242e12"),  # sparse taken for dense
        ("rtx-4090", {"peak_ops_per_s": {"fp16": 330.3e12}}, "peak_ops_per_s.fp16 is 330.3e12"),  # fp16 accumulation
        ("h100-sxm", {"peak_ops_per_s": {"fp8": 3957.8e12}}, "peak_ops_per_s.fp8"),
        ("jetson-orin-nano-8gb", {"peak_ops_per_s": {"int8": 67e12}}, "peak_ops_per_s.int8 is 67e12"),
        ("jetson-orin-nano-8gb", {"peak_ops_per_s": {"fp8": 33e12}}, "87 has no such rate"),
        ("b200", {"peak_ops_per_s": {"fp16": 2.25e15, "fp8": 4e15}}, "peak_ops_per_s.fp8"),  # no clock: against fp16
        ("rtx-5090", {"memory_bandwidth_bytes_per_s": 1.729e12}, "memory_bandwidth_bytes_per_s is 1729.0e9"),
        ("rtx-3090", {"memory_bus_bits": 348}, "348 bits"),
        ("jetson-agx-orin-64gb", {"memory_transfers_per_s": 6.0e9}, "6.000 GT/s"),
        ("jetson-orin-nx-8gb", {"memory_bandwidth_bytes_per_s": 120e9}, "memory_bandwidth_bytes_per_s"),
        ("jetson-orin-nx-8gb", {"gpu_clock_hz": 1.2e9}, "gpu_clock_hz is 1.2e+09"),
        ("jetson-orin-nx-16gb", {"dtypes": ("fp16", "fp8")}, "fp8 needs compute capability 89"),
        ("h200", {"dtypes": ("fp16", "fp4")}, "fp4 needs compute capability 100"),
        ("h200", {"backends": ("tensorrt-rtx", "tensorrt")}, "tensorrt-rtx does not build"),
        ("l4", {"shared_memory_per_block_bytes": 163 * 1024}, "shared_memory_per_block_bytes"),
        ("l4", {"software": (Software("TensorRT-RTX 1.7", "13.0", "1.7", "tensorrt-rtx"),), "backends": ("tensorrt",)},
         "software TensorRT-RTX 1.7"),
        ("jetson-orin-nano-8gb", {"power_modes": (PowerMode("25W", 15, 1.02e9, 102.4e9),)}, "25W has a limit of 15 W"),
        ("jetson-agx-orin-64gb", {"power_modes": (PowerMode("MODE_30W", 50, 1.3e9, 204.8e9),)}, "MODE_30W has a limit"),
        ("l4", {"compute_capability": "95"}, "compute_capability 95"),
    ],
)  # fmt: skip
def test_a_wrong_figure_is_named(name: str, changes: dict[str, Any], named: str) -> None:
    profile = device_profile(name)
    assert contradictions(profile) == []
    assert any(named in sentence for sentence in contradictions(replace(profile, **changes)))
