"""What a line that begins with a slash does in a chat."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from edgekit.chat.conversation import Conversation
from edgekit.chat.dialogue import Dialogue
from edgekit.errors import EdgekitError
from edgekit.words import counted

#: A path such as /usr/bin is not a command; a command's name is one word.
_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """What to tell the user, and whether the chat is over."""

    message: str = ""
    leave: bool = False


@dataclass(frozen=True)
class Command:
    """A slash command: `argument` names what follows it ("" for nothing), `run` is given that text."""

    name: str
    argument: str
    help: str
    run: Callable[[Dialogue, str], Outcome]

    @property
    def usage(self) -> str:
        """ "/save FILE" """
        return f"/{self.name} {self.argument}".rstrip()


def command_of(text: str) -> tuple[str, str] | None:
    """Name and argument of a turn that is a command; None for one that is meant for the model."""
    match = _COMMAND.fullmatch(text.strip())
    return (match[1].lower(), (match[2] or "").strip()) if match else None


def run_command(dialogue: Dialogue, name: str, argument: str) -> Outcome:
    """Run a command. What goes wrong is told, and ends nothing."""
    command = COMMANDS.get(name)
    if command is None:
        near = get_close_matches(name, COMMANDS)
        hint = f"did you mean {' or '.join('/' + match for match in near)}?" if near else "/help lists the commands"
        return Outcome(f"there is no command /{name}; {hint}")
    if argument and not command.argument:
        return Outcome(f"/{name} takes nothing after it")
    try:
        return command.run(dialogue, argument)
    except EdgekitError as error:
        return Outcome(str(error))
    except OSError as error:
        return Outcome(f"{error.strerror}: {error.filename}")


def _help(dialogue: Dialogue, argument: str) -> Outcome:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()]
    return Outcome(
        "\n".join(
            [
                *lines,
                'Alt-Enter, or \\ at the end of a line, starts a new line; """ begins and ends a block.',
                "Ctrl-C stops an answer; Ctrl-D leaves.",
            ]
        )
    )


def _reset(dialogue: Dialogue, argument: str) -> Outcome:
    dialogue.conversation = Conversation(dialogue.conversation.system)
    return Outcome(
        "the conversation starts anew" + ("; the system prompt stays" if dialogue.conversation.system else "")
    )


def _stats(dialogue: Dialogue, argument: str) -> Outcome:
    used, capacity = dialogue.context
    context = f"context {used} of {capacity} tokens, {counted(len(dialogue.conversation.messages), 'messages')}"
    if dialogue.statistics is None:
        return Outcome(context)
    lines = [dialogue.statistics.summary()]
    if dialogue.statistics.draft is not None and dialogue.drafted is not None:
        lines += dialogue.statistics.draft.details()
        if dialogue.drafted.sources:
            lines.append(f"all answers so far: {dialogue.drafted.summary()}")
    return Outcome("\n".join([*lines, context]))


def _system(dialogue: Dialogue, argument: str) -> Outcome:
    if not argument:
        return Outcome(dialogue.conversation.system or "there is no system prompt; the template may add its own")
    dialogue.conversation.system = argument
    return Outcome("the system prompt is set")


def _save(dialogue: Dialogue, argument: str) -> Outcome:
    path = _file(argument)
    if path is None:
        return Outcome("/save needs the name of a file")
    dialogue.conversation.save(path)
    return Outcome(f"saved {counted(len(dialogue.conversation.messages), 'messages')} to {path}")


def _load(dialogue: Dialogue, argument: str) -> Outcome:
    path = _file(argument)
    if path is None:
        return Outcome("/load needs the name of a file")
    dialogue.conversation = Conversation.load(path)
    return Outcome(f"loaded {counted(len(dialogue.conversation.messages), 'messages')} from {path}")


def _quit(dialogue: Dialogue, argument: str) -> Outcome:
    return Outcome(leave=True)


def _file(argument: str) -> Path | None:
    return Path(argument).expanduser() if argument else None


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "this list", _help),
        Command("reset", "", "forget the conversation", _reset),
        Command("stats", "", "speed of the last answer and what drafting did, and how full the context is", _stats),
        Command("system", "TEXT", "set the system prompt; without TEXT, show it", _system),
        Command("save", "FILE", "keep the conversation in a file", _save),
        Command("load", "FILE", "go on with a conversation from a file", _load),
        Command("quit", "", "leave", _quit),
    )
}
