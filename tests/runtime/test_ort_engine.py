from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import pytest

from edgekit.errors import DoesNotFit, EdgekitError, SessionError
from edgekit.runtime.ort_engine import inference_session, ort_errors


def test_a_missing_provider_is_refused_with_what_there_is(tiny_graphs: dict[str, Path]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(SessionError) as caught:
        inference_session(tiny_graphs["shared"], "cuda", None)
    assert "CUDAExecutionProvider" in caught.value.rule
    assert "CPUExecutionProvider" in caught.value.fact
    assert "edgekit[cuda]" in caught.value.next_step


def test_a_provider_that_does_not_start_is_refused(
    tiny_graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime lists CUDA where it was built in, and goes on with the CPU when the libraries are missing."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, providers: real(path, options, ["CPUExecutionProvider"])
    )
    with pytest.raises(SessionError) as caught:
        inference_session(tiny_graphs["shared"], "cuda", None)
    assert "CPUExecutionProvider" in caught.value.fact


def test_a_missing_onnxruntime_is_named(tiny_graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SessionError) as caught:
        inference_session(tiny_graphs["shared"], "cpu", None)
    assert "edgekit[cpu]" in caught.value.next_step


@pytest.mark.parametrize(("backend", "threads", "fact"), [("npu", None, "'npu'"), ("cpu", 0, "0"), ("cpu", -2, "-2")])
def test_senseless_settings_are_refused(
    tiny_graphs: dict[str, Path], backend: str, threads: int | None, fact: str
) -> None:
    with pytest.raises(SessionError) as caught:
        inference_session(tiny_graphs["shared"], backend, threads)
    assert fact in caught.value.fact


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0b" * 100])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError) as caught:
        inference_session(path, "cpu", 1)
    assert "broken.onnx" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"absent\.onnx"):
        inference_session(tmp_path / "absent.onnx", "cpu", 1)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("CUDA out of memory")])
def test_running_out_of_memory_does_not_fit(error: Exception) -> None:
    with pytest.raises(DoesNotFit, match="process 5 tokens"), ort_errors("process 5 tokens"):
        raise error


def test_other_errors_keep_their_words_and_the_first_cause() -> None:
    with pytest.raises(SessionError, match="the kernel is unhappy") as caught, ort_errors("load x"):
        raise ValueError("the kernel\n is unhappy")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_in_words_already_stays_as_it_is() -> None:
    with pytest.raises(EdgekitError) as caught, ort_errors("load x"):
        raise EdgekitError("rule")
    assert type(caught.value) is EdgekitError


def test_interrupts_pass_through() -> None:
    with pytest.raises(KeyboardInterrupt), ort_errors("load x"):
        raise KeyboardInterrupt
