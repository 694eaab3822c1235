"""How custom operators are made to run, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgekit.native
from edgekit.contract import CACHE_CONCAT, CACHE_SHARED
from edgekit.errors import SessionError
from edgekit.native import NativeUnavailable
from edgekit.runtime import operators
from edgekit.runtime.operators import operator_support

LIBRARY = Path("somewhere/lib.so")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    for kept in (operators._library, operators._note):
        kept.cache_clear()
    yield
    for kept in (operators._library, operators._note):
        kept.cache_clear()


def found(announce: Callable[[str], None]) -> Path:
    announce("compiling")
    return LIBRARY


def missing(announce: Callable[[str], None]) -> Path:
    raise NativeUnavailable("native operators need a compiler", "there is none", "install g++")


def test_a_graph_without_custom_operators_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", missing)
    support = operator_support([], "cpu")
    assert (support.library, support.description) == (None, "")
    assert support.cache_kind(CACHE_SHARED) == CACHE_SHARED


def test_the_library_is_taken_where_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", found)
    support = operator_support(["TPAAttention"], "cpu")
    assert (support.library, support.description) == (LIBRARY, "TPAAttention native")
    assert support.cache_kind(CACHE_SHARED) == CACHE_SHARED
    operator_support(["TPAAttention"], "cpu")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "compiling\n")  # built, and said, once


def test_without_a_compiler_the_bodies_run_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", missing)
    support = operator_support(["TPAAttention"], "cpu")
    assert support.library is None
    assert "standard operators" in support.description
    assert "there is none" in support.description
    assert support.cache_kind(CACHE_SHARED) == CACHE_CONCAT  # a body cannot write in place
    operator_support(["TPAAppend"], "cpu")
    assert capsys.readouterr().err.splitlines() == [  # once
        "note: native operators need a compiler",
        "there is none",
        "install g++",
        "until then, operators run as standard ones, which is slower",
    ]


def test_native_is_never_replaced_when_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", missing)
    with pytest.raises(SessionError, match="there is none") as caught:
        operator_support(["TPAAttention"], "cpu", "native")
    assert caught.value.next_step == "install g++; or choose --operators functions, which is slower"
    assert capsys.readouterr().err == ""  # the error says it all
    monkeypatch.setattr(edgekit.native, "ort_library", found)
    with pytest.raises(SessionError, match="the backend is cuda"):
        operator_support(["TPAAttention"], "cuda", "native")


def test_bodies_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", found)
    support = operator_support(["TPAAttention"], "cpu", "functions")
    assert support.library is None
    assert support.cache_kind(CACHE_SHARED) == CACHE_CONCAT


@pytest.mark.parametrize("choice", ["auto", "native"])
def test_a_form_without_bodies_is_refused_without_a_library(
    choice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", missing)
    with pytest.raises(SessionError, match="plugins only") as caught:
        operator_support(["TPAAttention"], "cpu", choice, bodies=False)
    assert (caught.value.fact, caught.value.next_step) == ("there is none", "install g++; or export another --form")
    with pytest.raises(SessionError, match="plugins only"):
        operator_support(["TPAAttention"], "cpu", "functions", bodies=False)
    with pytest.raises(SessionError, match="plugins only"):
        operator_support(["TPAAttention"], "cuda", choice, bodies=False)
    assert capsys.readouterr().err == ""


def test_without_a_compiler_nothing_contradicts_the_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real search for a compiler, where there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SessionError) as caught:
        operator_support(["TPAAttention"], "cpu", "native")
    assert "standard" not in str(caught.value)
    assert capsys.readouterr().err == ""


def test_on_a_gpu_the_bodies_run_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgekit.native, "ort_library", found)
    support = operator_support(["TPAAppend", "TPAAttention"], "cuda")
    assert support.library is None
    assert "TPAAppend and TPAAttention as standard operators" in support.description
    assert "the backend is cuda" in support.description


def test_an_unknown_choice_lists_the_valid_ones() -> None:
    with pytest.raises(SessionError, match="auto, native, functions"):
        operator_support(["TPAAttention"], "cpu", "fast")
