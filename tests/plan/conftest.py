"""Profiles written out here, so that expectations do not move with the devices' files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.device.profile import DeviceProfile, PowerMode, Software
from edgekit.plan.model_sizes import ModelSizes, model_sizes

MODELS = Path(__file__).parent / "models"

#: A board of round numbers: 8 GB shared, 100 GB/s, 10 Tops/s, 1 GHz.
BOARD = DeviceProfile(
    name="board",
    title="Board",
    kind="jetson",
    backends=("tensorrt",),
    compute_capability="87",
    streaming_multiprocessors=8,
    memory_bytes=8_000_000_000,
    memory_is_shared=True,
    memory_bandwidth_bytes_per_s=100e9,
    dtypes=("fp32", "fp16", "int8", "int4"),
    peak_ops_per_s={"fp32": 1e12, "fp16": 10e12, "int8": 20e12},
    power_modes=(
        PowerMode("10W", watts=10, gpu_clock_hz=0.5e9, memory_bandwidth_bytes_per_s=50e9),
        PowerMode("20W", watts=20, gpu_clock_hz=1e9, memory_bandwidth_bytes_per_s=100e9),
    ),
    software=(Software("JetPack 7.2", "13.2", "10.16"),),
    sources={},
    memory_reserved_bytes=1_000_000_000,
    gpu_clock_hz=1e9,
)
#: The same with a TensorRT that has no cache in place.
OLD = replace(BOARD, name="old", title="Old board", software=(Software("JetPack 6.2", "12.6", "10.3"),))
CARD = replace(
    BOARD,
    name="card",
    title="Card",
    kind="rtx",
    backends=("tensorrt-rtx", "tensorrt"),
    compute_capability="89",
    memory_is_shared=False,
    power_modes=(PowerMode("default", watts=300),),
)


def config(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text())
    return found


@pytest.fixture
def llama_2_7b() -> ModelSizes:
    return model_sizes(config("llama-2-7b"))


@pytest.fixture
def smollm2() -> ModelSizes:
    return model_sizes(config("smollm2-135m"))
