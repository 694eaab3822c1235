"""The texts that a bundle and its PyTorch model are compared on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from edgekit.errors import PromptError

#: The line between two prompts of a file.
SEPARATOR = "%%"


def shipped_prompts() -> list[str]:
    """Eight short prompts of different kinds: prose, a question, code, JSON, digits, many scripts, a list."""
    return _split(files("edgekit.parity").joinpath("data/prompts.txt").read_text("utf-8"))


def prompts_from_file(path: Path) -> list[str]:
    """The prompts of a UTF-8 file, separated by lines that hold only %%.

    Raises:
        PromptError: the file is not UTF-8, or holds no text.
    """
    try:
        prompts = _split(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PromptError(
            "prompts must be UTF-8 text", f"byte {error.start} of {path} is not", "convert the file to UTF-8"
        ) from error
    if not prompts:
        raise PromptError("a file of prompts must hold text", f"{path} holds none", "write prompts into it")
    return prompts


def _split(text: str) -> list[str]:
    prompts: list[str] = []
    lines: list[str] = []
    for line in [*text.splitlines(), SEPARATOR]:
        if line.strip() == SEPARATOR:
            prompts.append("\n".join(lines))
            lines = []
        else:
            lines.append(line)
    return [prompt for prompt in prompts if prompt.strip()]
