from __future__ import annotations

import io
import random

import pytest
from rich.console import Console

from edgekit.chat.display import MarkdownDisplay, PlainDisplay, split_blocks, without_controls


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [(["a", "", "b"], "ab\n"), (["a\n"], "a\n"), ([], "\n"), (["a\n", ""], "a\n"), (["日", "本"], "日本\n")],
)
def test_plain_text_ends_with_one_newline(pieces: list[str], shown: str) -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    for piece in pieces:
        display.write(piece)
    display.close()
    assert stream.getvalue() == shown


def test_a_file_gets_the_very_text_and_a_terminal_no_control_characters() -> None:
    text = "a\x1b]0;title\x07b\tc\nd\x9b2J\r\x00"
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        display = PlainDisplay(stream)
        display.write(text)
        display.close()
    assert file.getvalue() == text + "\n"
    assert terminal.getvalue() == "a]0;titleb\tc\nd2J\n"
    assert without_controls("日本 🙂 é") == "日本 🙂 é"


@pytest.mark.parametrize(
    "blocks",
    [
        [""],
        ["one"],
        ["one\n\n"],
        ["one", "two"],
        ["one", "two", "three"],
        ["one", "- a\n\n  more of a"],
        ["```\nx\n\ny\n"],
        ["```\nx\n\ny\n```", "after"],
        ["````\n```\n\ny\n"],
        ["~~~\n```\n\ny\n~~~", "z"],
        ["```\nx\n``` not the end\n\ny"],
    ],
)
def test_blocks(blocks: list[str]) -> None:
    assert split_blocks("\n\n".join(blocks)) == blocks


def show(text: str, pieces: int, seed: int = 0) -> str:
    """What stays on a terminal, without colours; the display gets the text in random pieces."""
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=60, height=20, color_system=None, legacy_windows=False)
    display = MarkdownDisplay(console)
    cuts = sorted(random.Random(seed).randrange(len(text) + 1) for _ in range(pieces))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        display.write(text[start:end])
    display.close()
    return settled(stream.getvalue())


def settled(output: str) -> str:
    """Obey the few cursor movements that rich uses to redraw, and give the screen's text."""
    import re

    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", output):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\r" or part.startswith("\x1b["):
            continue
        else:
            lines[row] += part
    return "\n".join(line.rstrip() for line in lines).rstrip()


TEXT = "# Title\n\nSome *emphasis* and `code`.\n\n- one\n- two\n\n```python\nprint(1)\n\nprint(2)\n```\n\nThe end."


@pytest.mark.parametrize("pieces", [0, 1, 5, 50])
def test_markdown_looks_the_same_however_it_comes(pieces: int) -> None:
    shown = show(TEXT, pieces)
    assert shown == show(TEXT, 0)
    assert "*emphasis*" not in shown
    assert "emphasis" in shown
    assert shown.count("print(1)") == shown.count("print(2)") == 1
    assert shown.rstrip().endswith("The end.")


def test_an_answer_longer_than_the_screen_is_whole() -> None:
    text = "\n".join(f"{i}. item {i}" for i in range(1, 60))
    shown = show(text, 200)
    assert all(shown.count(f"item {i}\n") == 1 for i in range(1, 59))


def test_control_characters_never_reach_the_terminal() -> None:
    stream = Terminal()
    display = MarkdownDisplay(Console(file=stream, force_terminal=True, width=60, color_system=None))
    display.write("a\x1b]0;pwned\x07b")
    display.close()
    assert "\x1b]" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()
