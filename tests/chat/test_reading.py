from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from edgekit.chat.reading import NothingTyped, PipeReader, TerminalReader, is_incomplete, unfolded


@pytest.mark.parametrize(
    ("text", "incomplete", "turn"),
    [
        ("hello", False, "hello"),
        ("  hello  ", False, "hello"),
        ("", False, ""),
        ("one\\", True, "one"),
        ("one\\\ntwo", False, "one\ntwo"),
        ("one\\\ntwo\\", True, "one\ntwo"),
        ('"""', True, ""),
        ('"""one', True, "one"),
        ('"""one\ntwo', True, "one\ntwo"),
        ('"""one\ntwo"""', False, "one\ntwo"),
        ('"""\none\n\ntwo\n"""', False, "one\n\ntwo"),
        ('"""one"""', False, "one"),
        ('"""ends with \\\nx"""', False, "ends with \\\nx"),
        ('say """ inside', False, 'say """ inside'),
        ('""""""', False, ""),
    ],
)
def test_folding(text: str, incomplete: bool, turn: str) -> None:
    assert is_incomplete(text) == incomplete
    assert unfolded(text) == turn


def turns(text: str) -> list[str]:
    reader, found = PipeReader(io.StringIO(text)), []
    while (turn := reader.read()) is not None:
        found.append(turn)
    assert reader.read() is None
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("\n\n  \n", []),
        ("one", ["one"]),
        ("one\n\n\ntwo\n", ["one", "two"]),
        ("one\\\ntwo\nthree", ["one\ntwo", "three"]),
        ('"""a\n\nb"""\nc\n', ["a\n\nb", "c"]),
        ('x\n"""never closed\nmore', ["x", "never closed\nmore"]),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("/quit\n", ["/quit"]),
        ("\\\n\\\nx\n", ["x"]),
        ('""""""\nx\n', ["x"]),
    ],
)
def test_lines_of_a_pipe_are_turns(text: str, found: list[str]) -> None:
    assert turns(text) == found


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


def typed(keys: PipeInput, text: str) -> TerminalReader:
    keys.send_text(text)
    return TerminalReader(lambda: ["/help", "/reset"])


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("hello\r", "hello"),
        ("\r\rhello\r", "hello"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        ('"""one\rtwo"""\r', "one\ntwo"),
        ("wrong\x03right\r", "right"),
        ("\x04", None),
    ],
)
def test_keys_of_a_terminal(keys: PipeInput, text: str, turn: str | None) -> None:
    assert typed(keys, text).read() == turn


def test_ctrl_c_in_an_empty_line_is_told_apart(keys: PipeInput) -> None:
    reader = typed(keys, "\x03")
    with pytest.raises(NothingTyped):
        reader.read()
    keys.send_text("still here\r")
    assert reader.read() == "still here"


def test_tab_completes_commands(keys: PipeInput) -> None:
    reader = typed(keys, "/he\t")
    later = threading.Timer(0.5, lambda: keys.send_text("\r"))  # completion runs beside the editing
    later.start()
    assert reader.read() == "/help"
    later.join()
