"""Progress goes to stderr only: plain lines in a log, bars on a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import select
from pathlib import Path

import pytest

from edgekit.cli.display_progress import LiveProgress, PlainProgress, amount, displayed_progress, duration
from edgekit.progress import Progress


def work(progress: Progress) -> None:
    progress.stage("tracing")
    progress.stage("writing", 4, "tensors")
    progress.advance()
    progress.advance(3)
    progress.note("int4 [carried over]")
    progress.stage("hashing", 2_000_000, "bytes")
    progress.advance(2_000_000)


def test_a_log_has_a_line_at_the_start_and_the_end_of_each_stage() -> None:
    stream = io.StringIO()
    with displayed_progress(stream) as progress:
        work(progress)
    lines = re.sub(r"in \d+\.\d s", "in T", stream.getvalue()).splitlines()
    assert lines == [
        "tracing ...",
        "tracing: done in T",
        "writing ... (4 tensors)",
        "  int4 [carried over]",
        "writing: done in T, 4 tensors",
        "hashing ... (2 MB)",
        "hashing: done in T, 2 MB",
    ]


def test_a_stage_that_fails_says_so() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), displayed_progress(stream) as progress:
        progress.stage("writing", 4, "tensors")
        progress.advance()
        raise KeyboardInterrupt
    assert re.search(r"writing: failed in .*, 1 tensor$", stream.getvalue().strip())


def test_nothing_goes_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with displayed_progress() as progress:
        work(progress)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "\x1b" not in captured.err
    assert "writing: done" in captured.err


@pytest.fixture
def terminal() -> tuple[io.TextIOWrapper, int]:
    """The two ends of a terminal: what is written to the first can be read from the second."""
    reader, writer = pty.openpty()
    return os.fdopen(writer, "w"), reader


def written(reader: int) -> str:
    """All that was written to the terminal: one read gives a page of it, and a slow machine draws more than that."""
    found = b""
    while select.select([reader], [], [], 0)[0]:
        found += os.read(reader, 1 << 16)
    return found.decode()


def test_a_terminal_shows_a_bar_with_count_and_time(
    terminal: tuple[io.TextIOWrapper, int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream, reader = terminal
    with displayed_progress(stream) as progress:
        assert isinstance(progress, LiveProgress)
        work(progress)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(reader))
    last = shown.replace("\r", "\n").split("✓ tracing")[-1]
    assert re.search(r"✓ writing +\S+ +4/4 tensors +\d\.\d s", last)
    assert re.search(r"✓ hashing +\S+ +2/2 MB +\d\.\d s", last)
    assert "int4 [carried over]" in shown
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_what_failed(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, reader = terminal
    with pytest.raises(KeyboardInterrupt), displayed_progress(stream) as progress:
        progress.stage("tracing")
        progress.stage("writing", 4, "tensors")
        raise KeyboardInterrupt
    shown = written(reader)
    assert "✓ tracing" in shown
    assert "✗ writing" in shown


def test_a_file_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, displayed_progress(stream) as progress:
        assert isinstance(progress, PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (10, "10 s"), (59.6, "1:00 min"), (125, "2:05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "unit", "text"), [(1234, "tensors", "1,234 tensors"), (98_362_432, "bytes", "98 MB"), (3, "", "3")]
)
def test_amount(count: int, unit: str, text: str) -> None:
    assert amount(count, unit) == text
