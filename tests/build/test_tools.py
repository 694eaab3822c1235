"""What is missing for a build is named, and ranges of sizes follow from a few limits."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit.build import plugin_library as compiling
from edgekit.build import rtx
from edgekit.build.plugin_library import Toolchain
from edgekit.build.profile import AxisRange, decoder_axes, profile_shapes, profile_values
from edgekit.errors import BuildError


def spec_of(known: dict[str, Any]) -> Any:
    return lambda name: known.get(name)


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        ({}, "it is not installed"),
        ({"tensorrt": SimpleNamespace()}, "`tensorrt` is, which is another product"),
        ({"tensorrt_rtx": SimpleNamespace()}, "without its libraries"),
    ],
    ids=["nothing", "tensorrt", "no_libraries"],
)
def test_what_of_tensorrt_rtx_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", spec_of(installed))
    with pytest.raises(BuildError, match=says) as caught:
        rtx.load.__wrapped__()
    assert "pip install tensorrt-rtx-cu13" in caught.value.next_step


def test_a_package_without_its_library_files_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: folder)
    with pytest.raises(BuildError, match=r"has no libtensorrt_rtx\.so\.1"):
        rtx.load.__wrapped__()


def test_importing_the_builder_imports_no_tensorrt_and_no_onnx() -> None:
    code = "import sys, edgekit.build.engine, edgekit.build.plugin_library; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"tensorrt", "tensorrt_rtx", "onnx", "torch", "numpy"} & set(done.stdout.split())


def test_headers_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_nvcc", lambda: tmp_path / "nvcc")
    with pytest.raises(BuildError, match=r"TENSORRT_INCLUDE_DIR is .* which has no NvInferRuntime\.h"):
        Toolchain.found()


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    with pytest.raises(BuildError, match="compiling the plugin library needs nvcc"):
        Toolchain.found()


def fake_toolchain(folder: Path, script: str) -> Toolchain:
    (folder / "NvInferVersion.h").write_text("version")
    nvcc = folder / "nvcc"
    nvcc.write_text(f"#!{sys.executable}\nimport sys, pathlib\narguments = sys.argv[1:]\n{script}\n")
    nvcc.chmod(0o755)
    return Toolchain(nvcc, folder)


def test_a_failed_compilation_shows_its_first_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    tools = fake_toolchain(tmp_path, "sys.exit('note\\nkernel.cuh(7): error: wrong')")
    with pytest.raises(BuildError, match=r"kernel\.cuh\(7\): error: wrong"):
        compiling.plugin_library(("90",), tools)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_what_is_compiled_already_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    calls = tmp_path / "calls"
    script = (
        f"if '-o' in arguments: pathlib.Path(arguments[-1]).write_text('x'); open({str(calls)!r}, 'a').write('o\\n')"
    )
    tools = fake_toolchain(tmp_path, script)
    first = compiling.plugin_library(("90",), tools)
    count = len(calls.read_text().splitlines())
    assert compiling.plugin_library(("90",), tools) == first
    assert len(calls.read_text().splitlines()) == count
    # Another architecture: only device code and the link are made again.
    assert compiling.plugin_library(("87",), tools) != first
    assert 1 < len(calls.read_text().splitlines()) - count < count


def tensor(name: str, shape: tuple[int, ...], names: tuple[str | None, ...] = (), decides: bool = False) -> Any:
    return SimpleNamespace(
        name=name, shape=shape, is_shape_tensor=decides, get_dimension_name=lambda axis: names[axis] if names else None
    )


def test_shapes_follow_from_the_names_of_axes() -> None:
    axes = decoder_axes(batch=4, new=32, context=100)
    cache = tensor("past", (-1, -1, 3, 8), ("batch_size", "past_sequence_length", None, None))
    assert profile_shapes([cache, tensor("table", (64, 4))], axes) == {
        "past": ((1, 0, 3, 8), (1, 49, 3, 8), (4, 99, 3, 8)),
    }
    keep = tensor("num_logits_to_keep", (1,), decides=True)
    assert profile_values([cache, keep], axes) == {"num_logits_to_keep": ((0,), (1,), (32,))}


def test_an_axis_or_a_value_without_a_range_is_refused() -> None:
    with pytest.raises(BuildError, match="axis 0 of x is called nothing"):
        profile_shapes([tensor("x", (-1,))], {"n": AxisRange(1, 1, 1)})
    with pytest.raises(BuildError, match="keep is one; values are given for none"):
        profile_values([tensor("keep", (1,), decides=True)], {})
