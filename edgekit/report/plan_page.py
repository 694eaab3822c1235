"""A plan, or several side by side, as a page like that of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit import __version__
from edgekit.plan.comparison import VERDICT, compared
from edgekit.plan.facts import missing, notes
from edgekit.plan.limits import largest_batch, largest_context
from edgekit.plan.plan import Plan
from edgekit.plan.step_cost import StepCost
from edgekit.plan.suggestions import build_suggestions, run_suggestions
from edgekit.plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from edgekit.plan.words import duration, gigabytes, rate, size
from edgekit.report.blocks import Block, Cell, Facts, Figure, Heading, Mood, Note, Page, Section, Table, Text, Tile
from edgekit.report.numbers import NO_BREAK_SPACE
from edgekit.report.svg import Bar, Bars, Lines, Point, Series
from edgekit.words import counted

_MOODS: dict[str, Mood] = {FITS: "good", TIGHT: "warn", DOES_NOT_FIT: "bad"}
#: Contexts from which the curve is drawn.
_FIRST_CONTEXT = 64


def plan_page(plans: Sequence[Plan]) -> Page:
    """The page for one plan, or for several of the same model."""
    first = plans[0]
    if len(plans) == 1:
        title, sections = f"{first.model} on {first.machine.device.title}", _one(first)
    else:
        title, sections = f"{first.model} on {len(plans)} devices", _several(plans)
    return Page(
        title=title,
        kicker="Plan",
        sections=tuple(sections),
        subtitle=_subtitle(first),
        footer=f"edgekit {__version__}. Formulas and sources: docs/planning.md.",
    )


def _subtitle(plan: Plan) -> str:
    o = plan.options
    attention = f", attention {o.attention} with {o.cache_ratio:.0%} of the cache" if o.cache_ratio != 1 else ""
    return (
        f"{plan.sizes.parameters:,} parameters as {o.dtype}{attention}; context {o.context:,}, batch {o.batch}, "
        f"at most {o.max_input:,} new tokens a step"
    )


def _one(plan: Plan) -> list[Section]:
    return [
        Section(part.name, part.title, part.make(plan), tiles=_tiles(plan) if place == 0 else (), label=part.label)
        for place, part in enumerate(_PARTS)
    ]


def _several(plans: Sequence[Plan]) -> list[Section]:
    totals = tuple(
        Bar(p.machine.device.name, p.memory.total.value, p.memory.total.low, p.memory.total.high) for p in plans
    )
    blocks = (comparison(plans), Figure(Bars("Memory at run time", "B", totals), numbers=False), _speed(plans))
    sections = [Section("comparison", "Comparison", blocks)]
    for plan in plans:
        device = plan.machine.device
        parts: list[Block] = [Note(f"{plan.run_verdict}, in power mode {plan.machine.mode.name}", _mood(plan))]
        for part in _PARTS:
            if not part.drawn_together:
                parts += [Heading(part.title), *part.make(plan)]
        sections.append(Section(device.name, device.title, tuple(parts), label=device.name))
    return sections


def comparison(plans: Sequence[Plan]) -> Table:
    """The devices in a table."""
    cells = compared(plans)
    rows: list[tuple[Text, ...]] = [
        (plan.machine.device.title, *(_verdict(text) if name == VERDICT else text for name, text in row.items()))
        for plan, row in zip(plans, cells, strict=True)
    ]
    return Table("Devices", ("device", *cells[0]), tuple(rows))


def _tiles(plan: Plan) -> tuple[Tile, ...]:
    speed, first = plan.speed, plan.speed.first_token_s
    of_memory = f"{size(plan.memory.total)} of {gigabytes(plan.memory.available)}"
    at_first = duration(first) if first else "unknown"
    return (
        Tile("Running", plan.run_verdict, f"power mode {plan.machine.mode.name}; {of_memory}", _mood(plan)),
        Tile("Decoding", f"{rate(speed.tokens_per_s)}{NO_BREAK_SPACE}tokens/s", f"limited by {speed.step.limit}"),
        Tile("First token", at_first, f"after {plan.options.prompt:,}, limited by {speed.first_token_limit}"),
    )


def _memory(plan: Plan) -> tuple[Block, ...]:
    total, available = plan.memory.total, plan.memory.available
    bars = [Bar(item.name, item.bytes.value, item.bytes.low, item.bytes.high) for item in plan.memory.items]
    bars.append(Bar("total", total.value, total.low, total.high, emphasis=True))
    bars.append(Bar("what the device leaves", available, emphasis=True))
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (item.name, Cell(size(item.bytes)), item.bytes.basis) for item in plan.memory.items
    )
    return (
        Figure(Bars("Memory at run time", "B", tuple(bars)), "Whiskers are ranges.", numbers=False),
        Table("What each rests on", ("use", "bytes", "rests on"), rows),
    )


def _speed(plans: Sequence[Plan]) -> Figure:
    most = plans[0].source.max_position_embeddings
    contexts = [2**n for n in range(_FIRST_CONTEXT.bit_length() - 1, most.bit_length()) if 2**n <= most] or [1, most]
    series = tuple(
        Series(plan.machine.device.name, tuple(Point(c, _tokens_per_s(plan, c)) for c in contexts)) for plan in plans
    )
    plot = Lines("Decoding speed over the context", "tokens in the cache", "tokens/s", series, log_x=True)
    pays = plans[0].cache_pays
    caption = (
        f"The cache's bytes equal the weights' at {pays.equals_weights:,.0f} tokens; half the cache makes steps 10 % "
        f"faster from {pays.half_pays_from:,.0f} tokens on."
    )
    return Figure(plot, caption if len(plans) == 1 else "")


def _tokens_per_s(plan: Plan, context: int) -> float:
    cost = StepCost(plan.sizes, plan.machine, plan.options.dtype, plan.options.of_plain_steps)
    return plan.options.batch / cost.step(context, plan.options.batch).seconds


def _build(plan: Plan) -> tuple[Block, ...]:
    build = plan.build
    where = "on the device" if build.on_device else "on any x86-64 machine"
    rows: list[tuple[str, Text]] = [
        ("by", f"{build.backend}, {where}"),
        ("peak memory", Cell(size(build.memory), note=f"rests on {build.memory.basis}")),
        ("time", duration(build.seconds) if build.seconds else "not measured for this backend"),
        ("engine", size(build.engine)),
    ]
    if plan.build_verdict:
        rows.insert(2, ("in the device's memory", _verdict(plan.build_verdict)))
    return (Facts(tuple(rows)), *(Note(line) for line in build_suggestions(plan)))


def _limits(plan: Plan) -> tuple[Block, ...]:
    context, batch = largest_context(plan), largest_batch(plan)
    facts: tuple[tuple[str, Text], ...] = (
        ("largest context", f"{context:,} tokens" if context else "none fits"),
        ("largest batch", f"{batch:,}" if batch else "none fits"),
    )
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (
            entry.change,
            _verdict(entry.plan.run_verdict),
            gigabytes(entry.plan.memory.total.value),
            rate(entry.plan.speed.tokens_per_s) if entry.speed_is_known else "",
            Cell(entry.command, code=True) if entry.command else "",
        )
        for entry in run_suggestions(plan)
    )
    head = ("change", "verdict", "memory", "tokens/s", "command")
    return (Facts(facts), *([Table("With a change", head, rows)] if rows else []))


def _break_even(plan: Plan) -> tuple[Block, ...]:
    even, pays = plan.break_even, plan.cache_pays
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (str(b.proposed), f"{b.relative_cost:.2f}", f"{b.tokens:.1f}", f"{b.draft_budget:.1f}") for b in even.blocks
    )
    head = ("proposed", "cost of verifying, steps", "tokens a step", "drafting may take, steps")
    facts: list[tuple[str, Text]] = [
        ("the cache's bytes equal the weights'", f"at {pays.equals_weights:,.0f} tokens"),
        ("half the cache makes steps 10 % faster", f"from {pays.half_pays_from:,.0f} tokens on"),
    ]
    if even.free_positions:
        facts.insert(0, ("verified in the time of one position", f"about {even.free_positions}"))
    facts += _drafting(plan)
    caption = f"Where {even.acceptance:.0%} of the proposed tokens are accepted"
    return (Table(caption, head, rows, (1, 2, 3)), Facts(tuple(facts)))


def _drafting(plan: Plan) -> list[tuple[str, Text]]:
    """What the drafts that were asked for win."""
    found = plan.drafting
    if found is None:
        return []
    needed = "no acceptance" if found.needed_acceptance is None else f"an acceptance of {found.needed_acceptance:.0%}"
    note = (
        f"{found.tokens_per_step:.2f} tokens a step (acceptance {found.basis}) for "
        f"{found.verify_cost + found.draft_cost:.2f} plain steps; pays from {needed} on"
    )
    best = counted(found.best, "tokens") if found.best else "plain decoding"
    return [
        (
            f"drafting {counted(found.proposed, 'tokens')}",
            Cell(f"{found.speed_up:.2f} times plain decoding", note=note),
        ),
        ("fastest", f"{best}, {rate(found.tokens_per_s)} tokens/s"),
    ]


def _remarks(plan: Plan) -> tuple[Block, ...]:
    return tuple(
        Note(line) for line in (*(f"The profile does not tell {each}." for each in missing(plan)), *notes(plan))
    )


def _verdict(verdict: str) -> Cell:
    return Cell(verdict, _MOODS[verdict])


def _mood(plan: Plan) -> Mood:
    return _MOODS[plan.run_verdict]


@dataclass(frozen=True)
class _Part:
    """A part of a page: a section where there is one plan, and below a heading of each device where there are several.

    Attributes:
        name: in addresses; label: in the navigation, "" for the title.
        drawn_together: whether several devices are in one plot.
    """

    name: str
    title: str
    make: Callable[[Plan], tuple[Block, ...]]
    label: str = ""
    drawn_together: bool = False


_PARTS = (
    _Part("memory", "Memory at run time", _memory, label="Memory"),
    _Part("speed", "Speed", lambda plan: (_speed([plan]),), drawn_together=True),
    _Part("build", "Building", _build),
    _Part("limits", "What else fits", _limits),
    _Part("tokens", "Several tokens at once, and smaller caches", _break_even, label="Several tokens"),
    _Part("notes", "To know", _remarks),
)
