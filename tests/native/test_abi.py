"""The hand-written part of ONNX Runtime's C interface, and how the library enters a session."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgekit.native.compiler import Compiler
from edgekit.native.source_files import SOURCES
from edgekit.ops.registry import operator
from tests.native.oracle import Sizes, attributes_of, inputs_of, tpa_attention
from tests.ops.backends import onnx_native

ABI = SOURCES / "common" / "ort_abi.h"
#: Where distributions install ONNX Runtime's headers (Debian and Ubuntu: libonnxruntime-dev).
HEADERS = [
    Path(p, "onnxruntime_c_api.h")
    for p in ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/include")
]
SPEC = operator("TPAAttention")


def entries() -> dict[str, int]:
    """The functions that ort_abi.h names, and their indices."""
    found = re.findall(r"constexpr Entry<(\d+),[^;]*>\s*(\w+)\{\};", ABI.read_text())
    return {name: int(index) for index, name in found}


def test_indices_are_distinct_and_within_the_table() -> None:
    indices = entries()
    assert len(indices) == ABI.read_text().count("constexpr Entry<")
    assert len(set(indices.values())) == len(indices)
    assert max(indices.values()) < 285
    assert indices["CreateStatus"] == 0


def test_header_of_onnxruntime_agrees(compiler: Compiler, tmp_path: Path) -> None:
    header = next((path for path in HEADERS if path.is_file()), None)
    if header is None:
        pytest.skip("ONNX Runtime's header is not installed (apt install libonnxruntime-dev)")
    lines = ["#include <cstddef>", f'#include "{header}"', f'#include "{ABI}"']
    lines += [f"static_assert(offsetof(OrtApi, {n}) == {i} * sizeof(void*));" for n, i in entries().items()]
    members = re.findall(r"\(\*(\w+)\)\(", ABI.read_text().split("struct CustomOp {")[1])
    lines += [f"static_assert(offsetof(OrtCustomOp, {m}) == offsetof(edgekit::ort::CustomOp, {m}));" for m in members]
    (tmp_path / "check.cpp").write_text("\n".join(lines))
    command = [*compiler.command, "-std=c++17", "-fsyntax-only", str(tmp_path / "check.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_library_serves_many_sessions(library: Path) -> None:
    """Registered twice in one process, with the first session gone and with it alive."""
    for _ in range(2):
        options = ort.SessionOptions()
        options.register_custom_ops_library(str(library))
    onnx_native._session.cache_clear()
    s = Sizes(past=3)
    attributes = attributes_of(s)
    inputs = inputs_of(s, attributes, "float32")
    first = onnx_native.run(SPEC, attributes, inputs, False)
    onnx_native._session.cache_clear()
    second = onnx_native.run(SPEC, attributes, inputs, False)
    np.testing.assert_array_equal(first["output"], second["output"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_file_runs_with_the_library_and_without(library: Path, tmp_path: Path, dtype: str) -> None:
    """A node with a function body: the library's kernel takes precedence; without it the body runs."""
    s = Sizes(past=70, batch=2, heads=5)
    attributes = SPEC.complete(attributes_of(s))
    inputs = inputs_of(s, attributes, dtype)
    names = tuple(operand.name for operand in SPEC.active_outputs(attributes))
    model = onnx_native.model_of(SPEC.name, attributes, {n: v.dtype.name for n, v in inputs.items()}, names)
    model.functions.append(SPEC.function(21, attributes, dtype))
    expected = tpa_attention(attributes, inputs)["output"]
    for registered in (True, False):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3
        if registered:
            options.register_custom_ops_library(str(library))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(["output"], inputs)[0].astype(np.float64)
        assert np.abs(found - expected).max() < {"float32": 5e-6, "float16": 5e-3}[dtype] * np.abs(expected).max()
        executed = (tmp_path / "optimized.onnx").read_bytes()
        assert (b"TPAAttention" in executed and b"Softmax" not in executed) == registered
        assert (b"Softmax" in executed) == (not registered)
