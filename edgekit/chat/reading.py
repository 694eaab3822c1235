"""Reading what the user says: from a terminal with editing, or from a pipe line by line."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

_BLOCK = '"""'


class NothingTyped(Exception):
    """Ctrl-C was pressed in an empty line."""


class Reader(Protocol):
    """Where turns come from."""

    def read(self) -> str | None:
        """The next turn, without the marks that joined its lines; None when there are no more.

        Raises:
            NothingTyped: Ctrl-C was pressed in an empty line of a terminal.
        """


def is_incomplete(text: str) -> bool:
    """Whether another line belongs to the turn: a block is open, or the last line ends with a backslash."""
    if text.lstrip().startswith(_BLOCK):
        return not _closed(text)
    return text.endswith("\\")


def unfolded(text: str) -> str:
    """The turn's text: the marks of a block removed, or the backslashes that end its lines."""
    stripped = text.strip()
    if stripped.startswith(_BLOCK):
        return stripped.removeprefix(_BLOCK).removesuffix(_BLOCK if _closed(text) else "").strip("\n")
    return text.replace("\\\n", "\n").removesuffix("\\").strip()


def _closed(text: str) -> bool:
    stripped = text.strip()
    return len(stripped) >= 2 * len(_BLOCK) and stripped.endswith(_BLOCK)


class PipeReader:
    """Every line is a turn, unless it is continued; empty lines are passed over."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def read(self) -> str | None:
        lines: list[str] = []
        for line in self._stream:
            lines.append(line.rstrip("\r\n"))
            turn = "\n".join(lines)
            if is_incomplete(turn):
                continue
            if unfolded(turn):
                return unfolded(turn)
            lines.clear()
        return unfolded("\n".join(lines)) or None


class TerminalReader:
    """Edits a turn with prompt_toolkit: Enter sends, Alt-Enter starts a new line, Ctrl-C clears, Ctrl-D leaves."""

    def __init__(self, complete: Callable[[], list[str]], prompt: str = "> ") -> None:
        """`complete` gives the words that Tab completes at the start of a turn."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.output import create_output

        completer = WordCompleter(complete, sentence=True)
        self._prompt = prompt
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_bindings(),
            prompt_continuation=lambda width, number, wrapped: "." * (width - 1) + " ",
            completer=completer,
            complete_while_typing=False,
            # Where the answers go to a file, the prompt still belongs on the terminal.
            output=create_output(always_prefer_tty=True),
        )

    def read(self) -> str | None:
        while True:
            try:
                text = unfolded(self._session.prompt(self._prompt))
            except EOFError:
                return None
            if text:
                return text


def _bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_incomplete(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=NothingTyped)

    return bindings
