"""Options that the verbs which generate text share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit.runtime.backends import BACKENDS

if TYPE_CHECKING:
    from edgekit.runtime.sampling import SamplingOptions

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default=BACKENDS[0],
    show_default=True,
    help="Where to run; there is no fallback. tensorrt takes an engine of the bundle.",
)
_SAMPLING = (
    click.option("--temperature", type=float, help="Divides the logits; 0 always takes the most likely token."),
    click.option("--top-k", type=int, help="Choose among the K most likely tokens; 0 is off."),
    click.option("--top-p", type=float, help="Choose among the likeliest tokens that hold this much; 1 is off."),
    click.option("--min-p", type=float, help="Choose among tokens with this share of the likeliest's; 0 is off."),
    click.option("--repetition-penalty", type=float, help="Above 1, what was said becomes less likely."),
    click.option("--seed", type=int, help="Makes the same choices again."),
)
_ENGINE = (
    click.option(
        "--stop",
        "stop_strings",
        multiple=True,
        metavar="TEXT",
        help="End before this text; may be given more than once.",
    ),
    backend_option,
    click.option(
        "--operators",
        type=click.Choice(["auto", "native", "functions"]),
        default="auto",
        show_default=True,
        help="How custom operators run: compiled, as the standard operators the graph carries, or what can be had.",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per physical core]"),
    click.option(
        "--max-context",
        type=click.IntRange(min=1),
        metavar="TOKENS",
        help="Most tokens of prompt and answer.  [default: all the bundle allows]",
    ),
)
_DRAFT = (
    click.option(
        "--draft",
        metavar="auto|cp|ngram|off|BUNDLE",
        help="Propose several tokens and verify them at once: by draft heads (cp), by copying what came before "
        "(ngram), by both (auto), or by a smaller model.  [default: auto; off where an answer is to be the same each "
        "time and 8-bit activations would make it differ]",
    ),
    click.option(
        "--draft-tokens",
        type=click.IntRange(1, 32),
        metavar="N",
        help="Always propose N tokens.  [default: as many as are fastest, by measurement; none where that is]",
    ),
)


def sampling_options(command: Decorated) -> Decorated:
    """Add --temperature, --top-k, --top-p, --min-p, --repetition-penalty and --seed, all None unless given."""
    return _apply(_SAMPLING, command)


def engine_options(command: Decorated) -> Decorated:
    """Add --stop, --backend, --operators, --threads and --max-context."""
    return _apply(_ENGINE, command)


def draft_options(command: Decorated) -> Decorated:
    """Add --draft and --draft-tokens."""
    return _apply(_DRAFT, command)


def draft_choice(draft: str | None, draft_tokens: int | None) -> str | None:
    """What --draft says, checked without opening anything.

    Raises:
        click.UsageError: it is neither one of the choices nor a directory, or the length of no draft was given.
    """
    from pathlib import Path

    from edgekit.runtime.drafting.open import CHOICES, OFF

    if draft is not None and draft not in CHOICES and not Path(draft).is_dir():
        raise click.UsageError(f"--draft is {', '.join(CHOICES)} or a bundle, and there is no directory {draft}.")
    if draft == OFF and draft_tokens is not None:
        raise click.UsageError("--draft-tokens has no effect with --draft off.")
    # Asked for by its length, a draft is not left out.
    return "auto" if draft is None and draft_tokens is not None else draft


def _apply(options: tuple[Callable[[Decorated], Decorated], ...], command: Decorated) -> Decorated:
    for option in reversed(options):
        command = option(command)
    return command


def sampling_from(given: dict[str, Any], default: SamplingOptions) -> SamplingOptions:
    """`default` with the options that were given.

    Raises:
        click.UsageError: a filter was asked for, and the temperature of 0 would leave it without effect.
        EdgekitError: a value is out of range.
    """
    from dataclasses import replace

    chosen = {name: value for name, value in given.items() if value is not None}
    sampling = replace(default, **chosen)
    idle = [name for name in ("top_k", "top_p", "min_p") if name in chosen]
    if sampling.greedy and idle:
        raise click.UsageError(f"--{idle[0].replace('_', '-')} has no effect at temperature 0; add --temperature.")
    return sampling
