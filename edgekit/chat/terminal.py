"""The chat itself: read a turn, run it or answer it, until there are no more."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.chat.commands import COMMANDS, command_of, run_command
from edgekit.chat.dialogue import Dialogue, MessagesDropped
from edgekit.chat.display import Display
from edgekit.chat.interrupt import Interrupt
from edgekit.chat.reading import NothingTyped, Reader
from edgekit.errors import PromptError
from edgekit.runtime.options import Finished, Piece

HOW_TO_LEAVE = "Ctrl-D or /quit leaves"
_NOTICES = {
    "length": "cut: --max-new-tokens was reached",
    "context-full": "cut: the context is full; /reset starts anew",
    "interrupted": "stopped",
}


def chat(dialogue: Dialogue, reader: Reader, display: Callable[[], Display], notice: Callable[[str], None]) -> None:
    """Answer turns until the reader has no more, or /quit.

    A prompt that cannot be answered is reported, and the chat goes on.

    Args:
        display: makes the place where one answer is shown.
        notice: shows a line that is not part of an answer.

    Raises:
        SessionError, DoesNotFit: the engine failed.
        KeyboardInterrupt: Ctrl-C was pressed again while an answer was being stopped.
    """
    while True:
        try:
            turn = reader.read()
        except NothingTyped:
            notice(HOW_TO_LEAVE)
            continue
        if turn is None:
            return
        command = command_of(turn)
        if command is None:
            try:
                answer(dialogue, turn, display, notice)
            except PromptError as error:
                notice(str(error))
            continue
        outcome = run_command(dialogue, *command)
        if outcome.message:
            notice(outcome.message)
        if outcome.leave:
            return


def answer(dialogue: Dialogue, question: str, display: Callable[[], Display], notice: Callable[[str], None]) -> None:
    """Answer one question; Ctrl-C stops it. Raises what Dialogue.ask does."""
    shown: Display | None = None
    with Interrupt() as interrupt:
        try:
            for event in dialogue.ask(question, interrupt.requested):
                if isinstance(event, MessagesDropped):
                    notice(f"the context is full: the {event.count} oldest messages were dropped")
                elif isinstance(event, Piece | Finished):
                    shown = shown or display()
                    shown.write(event.text if isinstance(event, Piece) else event.rest)
                if isinstance(event, Finished):
                    finished = event
        finally:
            if shown is not None:
                shown.close()
    if finished.reason in _NOTICES:
        unanswered = finished.reason == "interrupted" and not finished.text
        notice("stopped; the question is taken back" if unanswered else _NOTICES[finished.reason])


def command_words() -> list[str]:
    """What Tab completes."""
    return [f"/{name}" for name in COMMANDS]
