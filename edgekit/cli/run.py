"""Generate text from one prompt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.generation import draft_choice, draft_options, engine_options, sampling_from, sampling_options

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.chat.tokenizer import ChatTokenizer

NOTICES = {
    "length": "cut: --max-new-tokens was reached",
    "context-full": "cut: the context is full (see --max-context and --on-full)",
    "interrupted": "interrupted",
}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-p", "--prompt", metavar="TEXT", help="The prompt.  [default: what comes from a pipe]")
@click.option("--prompt-file", type=click.Path(path_type=Path, allow_dash=True), help="Read the prompt from a file.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the chat template.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--template", type=click.Path(path_type=Path), help="Chat template to use instead of the bundle's.")
@click.option("-n", "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@sampling_options
@engine_options
@draft_options
@click.option(
    "--on-full",
    type=click.Choice(["stop", "truncate-oldest", "error"]),
    default="stop",
    show_default=True,
    help="When the context is full: end the text, give up the oldest tokens, or refuse.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: text, tokens, finish_reason, statistics.")
@click.option("--stream-json", is_flag=True, help="Print a JSON object per token, then that of --json, a line each.")
@click.option("-q", "--quiet", is_flag=True, help="No statistics on stderr.")
def command(
    bundle: Path,
    prompt: str | None,
    prompt_file: Path | None,
    raw: bool,
    system: str | None,
    template: Path | None,
    max_new_tokens: int,
    stop_strings: tuple[str, ...],
    backend: str,
    operators: str,
    threads: int | None,
    max_context: int | None,
    draft: str | None,
    draft_tokens: int | None,
    on_full: Any,
    as_json: bool,
    stream_json: bool,
    quiet: bool,
    **sampling: Any,
) -> int:
    """Generate text from one prompt.

    The answer goes to stdout, everything else to stderr. Without --prompt and --prompt-file the whole of stdin is the
    prompt, less one newline at its end. Without --temperature the most likely token is always taken, so that the
    answer is the same each time.
    """
    if raw and (system is not None or template is not None):
        raise click.UsageError("--raw uses no template: it goes with neither --system nor --template.")
    if as_json and stream_json:
        raise click.UsageError("--json and --stream-json exclude each other.")
    choice = draft_choice(draft, draft_tokens)
    text = _prompt(prompt, prompt_file)

    from edgekit.bundle import read_bundle, require_kind
    from edgekit.chat.display import PlainDisplay
    from edgekit.chat.interrupt import Interrupt
    from edgekit.chat.tokenizer import tokenizer_from_bundle
    from edgekit.cli.main import EXIT_INTERRUPTED
    from edgekit.runtime.drafting.open import opened_for
    from edgekit.runtime.generate import check_length, generate
    from edgekit.runtime.options import Finished, GenerationOptions, Piece, Truncated
    from edgekit.runtime.sampling import SamplingOptions

    opened = read_bundle(bundle)
    require_kind(opened, "decoder", "a continuation")
    tokenizer = tokenizer_from_bundle(opened)
    options = GenerationOptions(
        sampling=sampling_from(sampling, SamplingOptions()),
        max_new_tokens=max_new_tokens,
        stop_tokens=frozenset(opened.manifest.tokens.eos),
        stop_strings=stop_strings,
        on_full=on_full,
    )
    tokens = tokenizer.encode(text, add_bos=True) if raw else _templated(opened, tokenizer, text, system, template)
    # Before the weights are read, because it needs none.
    check_length(len(tokens), min(max_context or sys.maxsize, opened.manifest.cache.capacity_limit), options)
    engine: dict[str, Any] = {"backend": backend, "threads": threads, "operators": operators}
    display = PlainDisplay(sys.stdout)
    opening = opened_for(opened, choice, draft_tokens, sampling=options.sampling, capacity=max_context, **engine)
    with opening as (session, drafting), Interrupt() as interrupt:
        for event in generate(session, tokenizer, tokens, options, drafting=drafting, cancelled=interrupt.requested):
            if isinstance(event, Piece) and stream_json:
                _print_json({"token": event.token, "text": event.text})
            elif isinstance(event, Piece) and not as_json:
                display.write(event.text)
            elif isinstance(event, Truncated):
                click.echo(f"the context is full: the {event.dropped} oldest tokens were dropped", err=True)
            elif isinstance(event, Finished):
                finished = event
    if as_json or stream_json:
        _print_json(
            {
                "text": finished.text,
                "tokens": finished.tokens,
                "finish_reason": finished.reason,
                "statistics": finished.statistics.to_dict(),
            }
        )
    else:
        display.write(finished.rest)
        display.close()
    if not quiet:
        click.echo(finished.statistics.summary(), err=True)
    if finished.reason in NOTICES:
        click.echo(NOTICES[finished.reason], err=True)
    return EXIT_INTERRUPTED if finished.reason == "interrupted" else 0


def _prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from wherever it was given. Raises PromptError when there is none."""
    from edgekit.errors import PromptError

    if prompt is not None and file is not None:
        raise click.UsageError("--prompt and --prompt-file exclude each other.")
    where = "the prompt"
    if prompt is None:
        if file is None and sys.stdin.isatty():
            raise PromptError(
                "a run needs a prompt",
                "none was given, and stdin is a terminal",
                "give --prompt TEXT or --prompt-file FILE, or pipe one in; edgekit chat talks",
            )
        where = "stdin" if file is None or str(file) == "-" else str(file)
        data = sys.stdin.buffer.read() if where == "stdin" else Path(where).read_bytes()
        try:
            prompt = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise PromptError(
                "a prompt must be UTF-8 text", f"byte {error.start} of {where} is not", "convert it to UTF-8"
            ) from error
    if not prompt.strip():
        raise PromptError("a prompt must hold text", f"{where} is empty", "give --prompt TEXT, or pipe one in")
    return prompt


def _templated(
    bundle: Bundle, tokenizer: ChatTokenizer, text: str, system: str | None, template: Path | None
) -> list[int]:
    from edgekit.chat.conversation import Conversation
    from edgekit.chat.template import template_from_bundle

    conversation = Conversation(system)
    conversation.add("user", text)
    rendered = template_from_bundle(bundle, template).render(
        conversation.as_dicts(), special_tokens=tokenizer.special_tokens
    )
    return tokenizer.encode(rendered)


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, ensure_ascii=False))
