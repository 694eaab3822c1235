"""A plan, or several side by side, as one page that needs nothing else: plots are inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgekit import __version__
from edgekit.plan.facts import missing, notes
from edgekit.plan.limits import largest_batch, largest_context
from edgekit.plan.plan import Plan
from edgekit.plan.step_cost import StepCost
from edgekit.plan.suggestions import build_suggestions, run_suggestions
from edgekit.plan.svg import Curve, line_plot, stacked_bars
from edgekit.plan.words import drafted_cells, duration, figure, gigabytes, rate, size

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #5a6470; --line: #d8dee4; --page: #fff; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --quiet: #9aa6b2; --line: #3a424b; --page: #11151a; --card: #1a2027; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 60rem; padding: 2rem 1.25rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.quiet, .tick { color: var(--quiet); fill: var(--quiet); } .tick { font-size: 12px; }
.label { font-size: 13px; fill: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.25rem; }
.fits { color: #1a7f37; } .tight { color: #b36b00; } .does-not-fit { color: #cf222e; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
code { background: var(--card); border-radius: .25rem; padding: .1rem .3rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; font-family: inherit; }
.grid { stroke: var(--line); } .mark { stroke: var(--quiet); stroke-dasharray: 4 4; }
.limit { stroke: var(--ink); stroke-width: 3; }
.legend span { margin-right: 1.1rem; font-size: .85rem; color: var(--quiet); }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .35rem; }
"""


def page(plans: Sequence[Plan]) -> str:
    """The page for one plan or more."""
    first = plans[0]
    title = (
        f"{first.model} on {first.machine.device.title}"
        if len(plans) == 1
        else f"{first.model} on {len(plans)} devices"
    )
    body = [f"<h1>{escape(title)}</h1>", f'<p class="quiet">{escape(_subtitle(first))}</p>', _memory_plot(plans)]
    if len(plans) > 1:
        body.insert(2, comparison(plans))
    body.append(_speed_plot(plans))
    body += [_one(plan, heading=len(plans) > 1) for plan in plans]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f'\n<p class="quiet">edgekit {escape(__version__)}. Formulas and sources: docs/planning.md.</p>'
        + "\n</body>\n</html>\n"
    )


def _subtitle(plan: Plan) -> str:
    o = plan.options
    attention = f", attention {o.attention} with {o.cache_ratio:.0%} of the cache" if o.cache_ratio != 1 else ""
    return (
        f"{plan.sizes.parameters:,} parameters as {o.dtype}{attention}; context {o.context:,}, batch {o.batch}, "
        f"at most {o.max_input:,} new tokens a step"
    )


def comparison(plans: Sequence[Plan]) -> str:
    """The devices in a table."""
    rows = [
        (
            plan.machine.device.title,
            _badge(plan.run_verdict),
            f"{gigabytes(plan.memory.total.value)} of {gigabytes(plan.memory.available)}",
            rate(plan.speed.tokens_per_s),
            escape(plan.speed.step.limit),
            duration(plan.speed.first_token_s) if plan.speed.first_token_s else "unknown",
            *drafted_cells(plan.drafting),
        )
        for plan in plans
    ]
    heads = ("device", "verdict", "memory", "tokens/s", "limited by", "first token")
    if plans[0].drafting is not None:
        return _table((*heads, "drafted tokens/s", "speed-up"), rows, raw=(1,))
    return _table(heads, rows, raw=(1,))


def _one(plan: Plan, *, heading: bool) -> str:
    device = plan.machine.device
    cards = [
        ("running", f'<b class="{_class(plan.run_verdict)}">{plan.run_verdict}</b>'),
        ("memory at run time", f"<b>{size(plan.memory.total)}</b>of {gigabytes(plan.memory.available)}"),
        (
            "decoding with a full cache",
            f"<b>{rate(plan.speed.tokens_per_s)} tokens/s</b>limited by {plan.speed.step.limit}",
        ),
        (
            f"first token after {plan.options.prompt:,}",
            f"<b>{duration(plan.speed.first_token_s) if plan.speed.first_token_s else 'unknown'}</b>"
            f"limited by {plan.speed.first_token_limit}",
        ),
    ]
    parts = [f"<h2>{escape(device.title)}</h2>"] if heading else []
    parts.append(f'<p class="quiet">power mode {escape(plan.machine.mode.name)}</p>')
    parts.append(
        '<div class="cards">'
        + "".join(f'<div class="card"><span class="quiet">{escape(name)}</span>{text}</div>' for name, text in cards)
        + "</div>"
    )
    rows = [(item.name, size(item.bytes), item.bytes.basis) for item in plan.memory.items]
    parts.append("<h2>Memory at run time</h2>" + _table(("use", "bytes", "rests on"), rows))
    parts.append("<h2>Building</h2>" + _build(plan))
    parts.append("<h2>What else fits</h2>" + _limits(plan))
    parts.append("<h2>Several tokens at once, and smaller caches</h2>" + _break_even(plan))
    remarks = [*(f"The profile does not tell {line}." for line in missing(plan)), *notes(plan)]
    parts.append("<h2>To know</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in remarks) + "</ul>")
    return "\n".join(parts)


def _build(plan: Plan) -> str:
    where = "on the device" if plan.build.on_device else "on any x86-64 machine"
    verdict = f" ({_badge(plan.build_verdict)})" if plan.build_verdict else ""
    time = f", {duration(plan.build.seconds)}" if plan.build.seconds else ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in build_suggestions(plan))
    return (
        f"<p>By {escape(plan.build.backend)} {where}: {size(plan.build.memory)} at the peak{verdict}{time}. "
        f"It rests on {escape(plan.build.memory.basis)}.</p>" + (f"<ul>{lines}</ul>" if lines else "")
    )


def _limits(plan: Plan) -> str:
    context, batch = largest_context(plan), largest_batch(plan)
    text = f"<p>Largest context {context:,} tokens. " if context else "<p>No context fits. "
    text += f"Largest batch {batch:,}.</p>" if batch else "No batch fits.</p>"
    rows = [
        (
            entry.change,
            _badge(entry.plan.run_verdict),
            gigabytes(entry.plan.memory.total.value),
            rate(entry.plan.speed.tokens_per_s) if entry.speed_is_known else "",
            f"<code>{escape(entry.command)}</code>" if entry.command else "",
        )
        for entry in run_suggestions(plan)
    ]
    return text + (_table(("change", "verdict", "memory", "tokens/s", "command"), rows, raw=(1, 4)) if rows else "")


def _break_even(plan: Plan) -> str:
    even = plan.break_even
    rows = [
        (
            str(block.proposed),
            f"{block.relative_cost:.2f}",
            f"{block.tokens:.1f}",
            f"{block.draft_budget:.1f}",
        )
        for block in even.blocks
    ]
    free = f"About {even.free_positions} positions are verified in the time of one. " if even.free_positions else ""
    return (
        f"<p>{free}Where {even.acceptance:.0%} of the proposed tokens are accepted:</p>"
        + _table(("proposed", "cost of verifying, steps", "tokens a step", "drafting may take, steps"), rows)
        + _drafting(plan)
        + f"<p>The cache's bytes equal the weights' at {plan.cache_pays.equals_weights:,.0f} tokens; half the cache "
        f"makes steps 10 % faster from {plan.cache_pays.half_pays_from:,.0f} tokens on.</p>"
    )


def _drafting(plan: Plan) -> str:
    found = plan.drafting
    if found is None:
        return ""
    needed = "no acceptance" if found.needed_acceptance is None else f"an acceptance of {found.needed_acceptance:.0%}"
    best = f"Best are {found.best} tokens" if found.best else "Plain decoding is faster"
    return (
        f"<p>Drafting {found.proposed} tokens a step gives {found.tokens_per_step:.2f} tokens (acceptance "
        f"{escape(found.basis)}) for {found.verify_cost + found.draft_cost:.2f} plain steps: {found.speed_up:.2f} "
        f"times plain decoding. It pays from {needed} on. {best}: {rate(found.tokens_per_s)} tokens/s.</p>"
    )


def _memory_plot(plans: Sequence[Plan]) -> str:
    names = [item.name for item in plans[0].memory.items]
    rows = [(plan.machine.device.name, [item.bytes.value / 1e9 for item in plan.memory.items]) for plan in plans]
    limits = [plan.memory.available / 1e9 for plan in plans]
    return "<h2>Memory, GB</h2>" + stacked_bars(rows, names, limits, "memory at run time by use")


def _speed_plot(plans: Sequence[Plan]) -> str:
    most = plans[0].source.max_position_embeddings
    contexts = [2**power for power in range(6, most.bit_length()) if 2**power <= most] or [1, most]
    curves = [Curve(plan.machine.device.name, [(c, _tokens_per_s(plan, c)) for c in contexts]) for plan in plans]
    marks = [(plans[0].cache_pays.equals_weights, "cache = weights")] if len(plans) == 1 else []
    plot = line_plot(curves, "tokens in the cache", "tokens/s", "decoding speed over the context", marks)
    return "<h2>Decoding speed over the context</h2>" + plot


def _tokens_per_s(plan: Plan, context: int) -> float:
    cost = StepCost(plan.sizes, plan.machine, plan.options.dtype, plan.options.compression)
    return plan.options.batch / cost.step(context, plan.options.batch).seconds


def _badge(verdict: str) -> str:
    return f'<span class="{_class(verdict)}">{escape(verdict)}</span>'


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], raw: tuple[int, ...] = ()) -> str:
    """Cells are escaped, but those of the columns `raw`, which are markup."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = [
        "<tr>" + "".join(f"<td>{cell if i in raw else escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


__all__ = ["comparison", "figure", "page"]
