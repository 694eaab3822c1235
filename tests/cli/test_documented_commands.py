"""Every `edgekit ...` of the documentation, read by the real commands: verbs, options, values and what is required."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from edgekit.cli.main import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "devices/*.md", "exports/**/*.md", "plugins/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # tells of past versions
)
INLINE = re.compile(r"`edgekit\s([^`]+)`")


def blocks(text: str) -> Iterator[str]:
    """Command lines that stand alone, indented or between fences, with continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("edgekit ") and (line.startswith("    ") or not line.startswith(" ")):
            yield line.strip()


def found(kind: str) -> list[Any]:
    """Each command line of a kind, with where it stands as its name."""
    lines = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        texts = blocks(text) if kind == "block" else (f"edgekit {match[1]}" for match in INLINE.finditer(text))
        lines += [pytest.param(line, id=f"{path.relative_to(ROOT)}: {' '.join(line.split())}") for line in texts]
    return lines


def words(line: str) -> list[str]:
    """As a shell takes them, without its comment and without what comes after the command."""
    parts = shlex.split(line, comments=True)
    end = next((i for i, part in enumerate(parts) if part in ("|", ">", "&&", ";", "<", "2>")), len(parts))
    return parts[1:end]


def parsed(arguments: list[str]) -> click.Context:
    """What the verb makes of its arguments; a click.ClickException where it refuses them."""
    group: click.Group = cli
    context = click.Context(cli)
    while True:
        name, command, arguments = group.resolve_command(context, arguments)
        assert command is not None
        context = command.make_context(name, list(arguments), parent=context)
        if not isinstance(command, click.Group):
            return context
        group = command


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """BUNDLE, FILE and the like stand for paths that are not there."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))


@pytest.mark.parametrize("line", found("block"))
def test_a_command_line_works_as_it_stands(line: str) -> None:
    parsed(words(line))


@pytest.mark.parametrize("line", found("inline"))
def test_a_command_in_the_text_has_a_verb_and_options_that_exist(line: str) -> None:
    """Text may leave arguments out."""
    verb, *rest = words(line)
    if verb.startswith("-"):
        group: click.Command = cli
        rest = [verb, *rest]
    else:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None, f"there is no verb {verb}"
        group = command
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.split("=")[0].rstrip(".,") for word in rest if word.startswith("-")} - {"--help", "-h"}
    assert options <= known


def test_there_is_something_to_read() -> None:
    assert len(found("block")) > 20
    assert len(found("inline")) > 10


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("edgekit export DIR -o BUNDLE", "dtype"),
        ("edgekit export DIR -o BUNDLE --dtype int3", "int3"),
        ("edgekit expert DIR", "expert"),
        ("edgekit run BUNDLE --promt x", "--promt"),
        ("edgekit bench BUNDLE --depth ten", "ten"),
    ],
)
def test_a_wrong_line_is_noticed(line: str, words: str) -> None:
    with pytest.raises(click.ClickException, match=words):
        parsed(line.split()[1:])
