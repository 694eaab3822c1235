"""How `edgekit plan` prints."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgekit.cli.table import print_table
from edgekit.plan.break_even import LONGEST_BLOCK, BreakEven
from edgekit.plan.comparison import compared
from edgekit.plan.facts import missing, notes
from edgekit.plan.limits import largest_batch, largest_context
from edgekit.plan.plan import Plan
from edgekit.plan.suggestions import build_suggestions, run_suggestions
from edgekit.plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from edgekit.plan.words import duration, gigabytes, rate, size
from edgekit.words import counted

_COLOURS = {FITS: "green", TIGHT: "yellow", DOES_NOT_FIT: "red"}


def print_plan(plan: Plan) -> None:
    """One plan, in sections."""
    _head(plan)
    _section("Running", [(item.name, size(item.bytes)) for item in plan.memory.items])
    _rows([("total", f"{size(plan.memory.total)} of {gigabytes(plan.memory.available)}")])
    _section("Building", _build_rows(plan))
    _section("Speed", _speed_rows(plan))
    _section("Several tokens at once", _block_rows(plan))
    _section("Limits", _limit_rows(plan))
    _suggest(plan)
    for title, lines in (("Not in the profile", missing(plan)), ("Notes", notes(plan))):
        if lines:
            click.echo(click.style(title, bold=True))
            for line in lines:
                click.echo(f"  {line}")


def print_comparison(plans: Sequence[Plan]) -> None:
    """Devices as rows."""
    cells = compared(plans)
    rows = [(plan.machine.device.name, *row.values()) for plan, row in zip(plans, cells, strict=True)]
    options = plans[0].options
    title = f"{plans[0].model} as {options.dtype}, context {options.context:,}, batch {options.batch}"
    print_table(["device", *cells[0]], rows, title)


def _head(plan: Plan) -> None:
    options, device = plan.options, plan.machine.device
    attention = f", attention {options.attention} with {options.cache_ratio:.0%} of the cache"
    click.echo(
        f"{plan.model} ({plan.sizes.model_type}, {plan.sizes.parameters:,} parameters) as {options.dtype}"
        + (attention if options.attention != "own" else "")
    )
    click.echo(f"on {device.title}, power mode {plan.machine.mode.name}")
    click.echo(f"context {options.context:,}, batch {options.batch}, at most {options.max_input:,} new tokens a step")
    click.echo()
    verdict = plan.run_verdict
    click.echo(click.style(verdict.upper(), fg=_COLOURS[verdict], bold=True) + f": {_why(plan)}")


def _why(plan: Plan) -> str:
    total, available = plan.memory.total, plan.memory.available
    if plan.run_verdict == FITS:
        return f"{size(total)} of {gigabytes(available)}"
    largest = max(plan.memory.items, key=lambda item: item.bytes.value)
    return (
        f"{size(total)} needed, {gigabytes(available)} available; the most is {largest.name}: "
        f"{gigabytes(largest.bytes.value)}"
    )


def _build_rows(plan: Plan) -> list[tuple[str, str]]:
    build = plan.build
    where = "on the device itself" if build.on_device else "on any x86-64 Linux machine, without the GPU"
    memory = size(build.memory)
    if plan.build_verdict:
        memory += f" of {gigabytes(build.available)}: {plan.build_verdict}"
    rows = [("by", f"{build.backend}, {where}"), ("peak memory", memory)]
    rows.append(("time", duration(build.seconds) if build.seconds else "not measured for this backend"))
    return rows + [("instead", line) for line in build_suggestions(plan)]


def _speed_rows(plan: Plan) -> list[tuple[str, str]]:
    speed = plan.speed
    rows = [
        ("decode, cache full", f"{rate(speed.tokens_per_s)} tokens/s, limited by {speed.step.limit}"),
        ("decode, cache empty", f"{rate(speed.at_start)} tokens/s"),
    ]
    first = duration(speed.first_token_s) if speed.first_token_s else "unknown"
    rows.append(
        ("first token", f"{first} after a prompt of {plan.options.prompt:,}, limited by {speed.first_token_limit}")
    )
    if speed.tokens_per_joule:
        rows.append(("tokens/J", f"{rate(speed.tokens_per_joule)}, {speed.tokens_per_joule.basis}"))
    return rows


def _block_rows(plan: Plan) -> list[tuple[str, str]]:
    even, pays = plan.break_even, plan.cache_pays
    rows = [
        (
            f"{block.proposed} proposed",
            f"verifying costs {block.relative_cost:.2f} of a step; {block.tokens:.1f} tokens at {even.acceptance:.0%} "
            f"accepted, so drafting may take {block.draft_budget:.1f} steps",
        )
        for block in even.blocks
    ]
    rows.append(("break-even", longest_block(even)))
    rows += _drafting_rows(plan)
    if even.free_positions:
        rows.append(
            ("for free", f"about {counted(even.free_positions, 'positions')}, before arithmetic is what limits")
        )
    rows.append(("smaller cache", f"half of it makes steps 10 % faster from {pays.half_pays_from:,.0f} tokens on"))
    rows.append(("", f"the cache's bytes equal the weights' at {pays.equals_weights:,.0f} tokens"))
    return rows


def _drafting_rows(plan: Plan) -> list[tuple[str, str]]:
    found = plan.drafting
    if found is None or plan.options.drafts is None:
        return []
    chances = " ".join(f"{chance:.0%}" for chance in plan.options.drafts.chances)
    needed = "no acceptance" if found.needed_acceptance is None else f"{found.needed_acceptance:.0%}"
    best = f"best with {found.best}" if found.best else "plain decoding is faster"
    return [
        (
            f"drafting {found.proposed}",
            f"{found.tokens_per_step:.2f} tokens a step at {chances} accepted ({found.basis}); it costs "
            f"{found.verify_cost:.2f} steps and drafting {found.draft_cost:.2f}: {found.speed_up:.2f} times as fast",
        ),
        ("", f"it pays from {needed} on; {best}: {rate(found.tokens_per_s)} tokens/s"),
    ]


def longest_block(even: BreakEven) -> str:
    """The block length beyond which verifying alone costs more than it can give."""
    if not even.longest_paying:
        return f"no block pays at {even.acceptance:.0%} accepted"
    more = "more than " if even.longest_paying == LONGEST_BLOCK else ""
    return f"{more}{even.longest_paying} proposed tokens at {even.acceptance:.0%} accepted, if drafting were free"


def _limit_rows(plan: Plan) -> list[tuple[str, str]]:
    context, batch = largest_context(plan), largest_batch(plan)
    own = plan.source.max_position_embeddings
    reached = " (the model's own limit)" if context == own else ""
    return [
        ("largest context", f"{context:,} tokens{reached}" if context else "none fits"),
        ("largest batch", f"{batch:,}" if batch else "none fits"),
    ]


def _suggest(plan: Plan) -> None:
    found = run_suggestions(plan)
    if not found:
        return
    click.echo(click.style("What would make it fit", bold=True))
    for entry in found:
        other = entry.plan
        speed = f", {rate(other.speed.tokens_per_s)} tokens/s" if entry.speed_is_known else ""
        click.echo(f"  {entry.change}: {gigabytes(other.memory.total.value)}, {other.run_verdict}{speed}")
        if entry.command:
            click.echo(f"      {entry.command}")


def _section(title: str, rows: Sequence[tuple[str, str]]) -> None:
    click.echo(click.style(title, bold=True))
    _rows(rows)


def _rows(rows: Sequence[tuple[str, str]]) -> None:
    for label, value in rows:
        click.echo(f"  {label:<24}  {value}".rstrip())
