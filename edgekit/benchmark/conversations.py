"""What is asked to measure drafting: questions of different kinds, and tasks that copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit.errors import PromptError


@dataclass(frozen=True)
class Questions:
    """The user's turns of one conversation; `group` says what kind it is."""

    group: str
    turns: tuple[str, ...]


def shipped_conversations() -> list[Questions]:
    """Six questions, one with a second turn, and three tasks in which a text is copied: edited, summarised, changed."""
    text = files("edgekit.benchmark").joinpath("data/conversations.jsonl").read_text("utf-8")
    return [_questions(json.loads(line), "") for line in text.splitlines()]


def conversations_from_file(path: Path) -> list[Questions]:
    """The conversations of a file of JSON lines: {"turns": ["...", ...], "category": "..."}, the latter if wanted.

    Raises:
        PromptError: a line is something else, or there is none.
    """
    found = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise _malformed(str(path), f"byte {error.start} is no UTF-8") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_questions(json.loads(line), path.stem))
            except (ValueError, RecursionError) as error:
                raise _malformed(f"{path}, line {number}", str(error)) from error
    if not found:
        raise _malformed(str(path), "it holds none")
    return found


def _questions(row: Any, group: str) -> Questions:
    """Raises ValueError that says what is wrong."""
    turns = row.get("turns") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns or not all(isinstance(each, str) and each.strip() for each in turns):
        raise ValueError('it has no "turns", a list of texts')
    category = row.get("category", group)
    if not isinstance(category, str):
        raise ValueError('its "category" is no text')
    return Questions(category, tuple(turns))


def _malformed(where: str, fact: str) -> PromptError:
    return PromptError(
        'conversations are JSON lines such as {"turns": ["a question", "the next"]}',
        f"{where}: {fact}",
        "write one conversation to a line",
    )
