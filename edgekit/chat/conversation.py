"""What has been said, and how it is kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import PromptError
from edgekit.files import atomic_write

SCHEMA = 1
_ROLES = ("user", "assistant")
_KEY = "edgekit_conversation"


@dataclass(frozen=True)
class Message:
    """One turn; `role` is "user" or "assistant"."""

    role: str
    content: str


@dataclass
class Conversation:
    """A system prompt, if any, and turns that alternate, the user's first."""

    system: str | None = None
    messages: list[Message] = field(default_factory=list)

    def as_dicts(self) -> list[dict[str, str]]:
        """For the template: the system prompt first, where there is one."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *({"role": message.role, "content": message.content} for message in self.messages)]

    def add(self, role: str, content: str) -> None:
        """Append a turn."""
        self.messages.append(Message(role, content))

    def drop_oldest_exchange(self) -> int:
        """Drop the oldest question and its answer; give the number of messages dropped.

        The last question stays: 0 when nothing else is left.
        """
        dropped = min(2, len(self.messages) - 1)
        del self.messages[:dropped]
        return max(dropped, 0)

    def save(self, path: Path) -> None:
        """Write as JSON in one step. Raises PromptError rather than replace a file that is no conversation."""
        if path.exists():
            try:
                Conversation.load(path)
            except PromptError as error:
                raise PromptError(
                    "saving replaces conversations only", f"{path} holds something else", "choose another name"
                ) from error
        document = {
            _KEY: SCHEMA,
            "system": self.system,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
        }
        atomic_write(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Read what `save` wrote. Raises PromptError naming the file and what is wrong; OSError if it is unreadable."""
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise _not_a_conversation(path, f"it is not valid JSON: {error}") from error
        if not isinstance(document, dict) or _KEY not in document:
            raise _not_a_conversation(path, f"it has no {_KEY}")
        if document[_KEY] != SCHEMA:
            raise PromptError(
                f"this edgekit reads conversations of schema {SCHEMA}",
                f"{path} has schema {document[_KEY]!r}",
                "update edgekit",
            )
        system, messages = document.get("system"), document.get("messages")
        if not isinstance(system, str | None):
            raise _not_a_conversation(path, "its system prompt is not a text")
        if not isinstance(messages, list):
            raise _not_a_conversation(path, "its messages are not a list")
        if len(messages) % 2:
            raise _not_a_conversation(path, "its last question has no answer")
        return cls(system, [_message(path, index, item) for index, item in enumerate(messages)])


def _message(path: Path, index: int, item: Any) -> Message:
    if not isinstance(item, Mapping) or not isinstance(item.get("content"), str):
        raise _not_a_conversation(path, f"message {index} has no text")
    role = _ROLES[index % 2]
    if item.get("role") != role:
        raise _not_a_conversation(path, f"message {index} is of role {item.get('role')!r}, not {role!r}")
    return Message(role, item["content"])


def _not_a_conversation(path: Path, why: str) -> PromptError:
    return PromptError("a conversation is a file that /save wrote", f"{path}: {why}", "check the name")
