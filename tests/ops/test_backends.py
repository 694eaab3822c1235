"""What the backends of the parity test call unavailable: a missing tool, never code that does not compile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.native import NativeUnavailable
from tests.ops.backends import onnx_native

ROOT = Path(__file__).parents[2]


@pytest.fixture
def failing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that answers, and finds an error in any source; it leaves a trace when it is asked to compile."""
    trace, path = tmp_path / "compiled", tmp_path / "c++"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo fake 1.0 && exit\n: > {trace}\necho an error >&2; exit 1\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return trace


@pytest.mark.usefixtures("failing_compiler")
def test_native_code_that_does_not_compile_fails_its_column() -> None:
    assert onnx_native.available() is None
    with pytest.raises(NativeUnavailable, match="an error"):
        onnx_native.library.__wrapped__()


def test_without_a_compiler_the_native_column_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "none of c++, g++, clang++ is on the PATH" in (onnx_native.available() or "")


def test_collecting_the_tests_of_bundles_compiles_nothing(failing_compiler: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/export/test_factor_bundles.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "native" in done.stdout
    assert not failing_compiler.exists()
