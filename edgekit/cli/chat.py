"""Chat with a bundle's model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.generation import draft_choice, draft_options, engine_options, sampling_from, sampling_options

if TYPE_CHECKING:
    from edgekit.chat.display import Display
    from edgekit.chat.reading import Reader


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--template", type=click.Path(path_type=Path), help="Chat template to use instead of the bundle's.")
@click.option("--load", "load_file", type=click.Path(path_type=Path), help="Go on with a conversation from /save.")
@click.option(
    "-n",
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Most tokens of one answer.",
)
@sampling_options
@engine_options
@draft_options
@click.option(
    "--on-full",
    type=click.Choice(["stop", "truncate-oldest", "error"]),
    default="truncate-oldest",
    show_default=True,
    help="When the context is full: cut the answer, drop the oldest messages, or refuse.",
)
@click.option("--plain", is_flag=True, help="Show answers as they are, without rendering Markdown.")
def command(
    bundle: Path,
    system: str | None,
    template: Path | None,
    load_file: Path | None,
    max_new_tokens: int,
    stop_strings: tuple[str, ...],
    backend: str,
    operators: str,
    threads: int | None,
    max_context: int | None,
    draft: str | None,
    draft_tokens: int | None,
    on_full: Any,
    plain: bool,
    **sampling: Any,
) -> None:
    """Chat with a bundle's model.

    Type /help for the commands. Where stdin is a pipe each line is a question, and only the answers go to stdout.
    Without --temperature and its like, tokens are chosen as the bundle's generation_config.json says; where it does
    not, with temperature 0.2 and top-p 0.9.
    """
    choice = draft_choice(draft, draft_tokens)

    from edgekit.bundle import read_bundle, require_kind
    from edgekit.chat.conversation import Conversation
    from edgekit.chat.defaults import chat_sampling
    from edgekit.chat.dialogue import Dialogue
    from edgekit.chat.template import template_from_bundle
    from edgekit.chat.terminal import chat
    from edgekit.chat.tokenizer import tokenizer_from_bundle
    from edgekit.runtime.drafting.open import opened_for
    from edgekit.runtime.options import GenerationOptions

    opened = read_bundle(bundle)
    require_kind(opened, "decoder", "a chat")
    tokenizer = tokenizer_from_bundle(opened)
    rendered_by = template_from_bundle(opened, template)
    conversation = Conversation() if load_file is None else Conversation.load(load_file)
    if system is not None:
        conversation.system = system
    options = GenerationOptions(
        sampling=sampling_from(sampling, chat_sampling(opened)),
        max_new_tokens=max_new_tokens,
        stop_tokens=frozenset(opened.manifest.tokens.eos),
        stop_strings=stop_strings,
        on_full=on_full,
    )
    engine: dict[str, Any] = {"backend": backend, "threads": threads, "operators": operators}
    interactive = sys.stdin.isatty()
    opening = opened_for(opened, choice, draft_tokens, sampling=options.sampling, capacity=max_context, **engine)
    with opening as (session, drafting):
        dialogue = Dialogue(session, tokenizer, rendered_by, options, conversation, drafting)
        if interactive:
            click.echo(f"{opened.manifest.model.name} · {session.description} · /help lists the commands", err=True)
        chat(dialogue, _reader(interactive), lambda: _display(plain), lambda line: click.echo(line, err=True))


def _reader(interactive: bool) -> Reader:
    from edgekit.chat.reading import PipeReader, TerminalReader
    from edgekit.chat.terminal import command_words

    return TerminalReader(command_words) if interactive else PipeReader(sys.stdin)


def _display(plain: bool) -> Display:
    from edgekit.chat.display import MarkdownDisplay, PlainDisplay

    if plain or not sys.stdout.isatty():
        return PlainDisplay(sys.stdout)
    from rich.console import Console

    return MarkdownDisplay(Console())
