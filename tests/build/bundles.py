"""Tiny bundles to build engines of, and changed copies of them."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.build.bundle_engine import BuildRequest
from edgekit.bundle import Bundle, read_bundle
from edgekit.bundle.read import read_manifest
from edgekit.checkpoint import open_checkpoint
from edgekit.device.profile import device_profile
from edgekit.files import sha256_of
from tests.parity.tiny_models import export, write_checkpoint
from tests.tools import lacking

#: Sizes that TensorRT's int4 blocks of 64 divide.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def tiny_bundle(folder: Path, dtype: str = "fp16", form: str = "tensorrt", name: str = "llama") -> Bundle:
    """A bundle of a random decoder of two layers."""
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", name, **SIZES))
    return export(checkpoint, folder / "bundle", form, dtype)


def copied(bundle: Bundle, destination: Path) -> Bundle:
    """A copy to change."""
    shutil.copytree(bundle.path, destination)
    return read_manifest(destination)


def with_manifest(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle with fields of its manifest changed, in memory only."""
    return replace(bundle, manifest=replace(bundle.manifest, **changes))


def with_graph(bundle: Bundle, destination: Path, change: Callable[[onnx.ModelProto], None]) -> Bundle:
    """A copy whose ONNX graph is changed, and whose manifest knows it."""
    made = copied(bundle, destination)
    model = onnx.load(made.graph, load_external_data=False)
    change(model)
    made.graph.write_bytes(model.SerializeToString())
    file = destination / "manifest.json"
    manifest = json.loads(file.read_text())
    for entry in manifest["files"]:
        if entry["name"] == made.manifest.graph.file:
            entry.update(bytes=made.graph.stat().st_size, sha256=sha256_of(made.graph))
    file.write_text(json.dumps(manifest))
    return read_bundle(destination, verify="full")


def request(device: str = "rtx-4090", **options: Any) -> BuildRequest:
    """A small engine."""
    limits = {"max_input_len": 8, "max_kv_cache_capacity": 32, "max_draft_len": 2, **options.pop("limits", {})}
    return BuildRequest(device=device_profile(device), limits=limits, **options)


def need_tensorrt_rtx() -> None:
    """Skip where TensorRT-RTX cannot be installed; fail where it should have been."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("TensorRT-RTX is installed on x86-64 Linux only")
    if importlib.util.find_spec("tensorrt_rtx") is None:
        lacking("tensorrt-rtx-cu13 is not installed")


def processes_of(parent: int) -> list[int]:
    """Living children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found
