"""Measure how fast a bundle runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekit.cli.generation import backend_option, draft_choice
from edgekit.words import counted


class Counts(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers of at least 1, separated by commas."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers; a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of whole numbers such as 128,512.", param, ctx)
        return tuple(int(part) for part in parts)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--prompt-tokens", type=Counts(), default="128,512", show_default=True, help="Lengths of prompts.")
@click.option(
    "--depth",
    "depths",
    type=Counts(),
    default="128,1024",
    show_default=True,
    help="Tokens in the cache when decoding begins.",
)
@click.option(
    "--decode-tokens", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens decoded at each depth."
)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Medians are over these.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per physical core]")
@backend_option
@click.option(
    "--operators",
    type=click.Choice(["auto", "native", "functions"]),
    default="auto",
    show_default=True,
    help="How custom operators run: compiled, as the standard operators the graph carries, or what can be had.",
)
@click.option(
    "--draft",
    metavar="auto|cp|ngram|BUNDLE",
    help="Also answer conversations with drafts and without, see edgekit chat --draft.",
)
@click.option(
    "--draft-tokens",
    type=click.IntRange(1, 32),
    metavar="N",
    help="With --draft: always propose N tokens.  [default: as many as are fastest, by measurement]",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help='With --draft: JSON lines such as {"turns": ["a question", "the next"]}.  [default: nine shipped ones]',
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(min=2),
    metavar="N",
    help="With --draft: most tokens of an answer.  [default: 128]",
)
@click.option("--unchecked", is_flag=True, help="Measure a bundle that has not passed edgekit parity.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, every sample included.")
def command(
    bundle: Path,
    draft: str | None,
    draft_tokens: int | None,
    prompts: Path | None,
    answer_tokens: int | None,
    unchecked: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Measure how fast a bundle runs here: first token, prompt, decoding, drafts, memory, loading, tokens per joule.

    Everything runs in a process of its own. The answers are checked first. Only a bundle that has passed edgekit
    parity is measured. The result is kept in the bundle as bench.json. With --draft conversations are answered with
    drafts and without, in turns, and reported only if drafts change no answer.
    """
    drafts = _draft_options(draft, draft_tokens=draft_tokens, prompts=prompts, answer_tokens=answer_tokens)
    from edgekit.benchmark.run import BenchmarkOptions, benchmark, require_parity
    from edgekit.bundle import read_bundle, require_kind, write_sidecar
    from edgekit.cli.display_progress import displayed_progress

    opened = read_bundle(bundle)
    require_kind(opened, "decoder", "a benchmark of decoding")
    options = BenchmarkOptions(**choices, **drafts)
    if not unchecked:
        require_parity(opened)
    with displayed_progress() as progress:
        report = benchmark(opened, options, progress)
    write_sidecar(opened, "bench", report)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)


def _draft_options(draft: str | None, **given: Any) -> dict[str, Any]:
    """The part of BenchmarkOptions that --draft is about. Raises click.UsageError, PromptError."""
    asked = [name for name, value in given.items() if value is not None]
    if draft is None:
        if asked:
            raise click.UsageError(f"--{asked[0].replace('_', '-')} has no effect without --draft.")
        return {}
    if draft == "off":
        raise click.UsageError("--draft off drafts nothing: leave it out to measure plain decoding.")
    options: dict[str, Any] = {"draft": draft_choice(draft, given["draft_tokens"])}
    options |= {name: given[name] for name in ("draft_tokens", "answer_tokens") if given[name] is not None}
    if given["prompts"] is not None:
        from edgekit.benchmark.conversations import conversations_from_file

        options["conversations"] = tuple(conversations_from_file(given["prompts"]))
    return options


def _print(report: dict[str, Any]) -> None:
    from edgekit.cli.table import print_table

    settings, machine = report["settings"], report["environment"]
    unproven = "" if report["parity"] else "; NOT CHECKED: this bundle has not passed edgekit parity"
    click.echo(f"{report['model']}, {report['dtype']}, {report['form']} form{unproven}")
    click.echo(f"{report['session']}; {machine['cpu']}")
    rows = []
    for row in report["prompts"]:
        name = f"prompt of {row['tokens']}"
        rows.append((f"{name}, first token", *_row(row["ttft_s"], 1e3, "ms")))
        rows.append((name, *_row(row["tokens_per_s"], 1, "tokens/s")))
    for row in report["decodes"]:
        rows.append((f"decode at depth {row['depth']}", *_row(row["tokens_per_s"], 1, "tokens/s")))
    for state in ("cold", "warm"):
        if report["load"][state] is not None:
            rows.append((f"load, {state}", *_row(report["load"][state]["load_s"], 1e3, "ms")))
    heading = f"of {counted(settings['repetitions'], 'repetitions')}"
    print_table((heading, "median", "mean", "σ", "min", "unit"), rows)
    for line in _remarks(report):
        click.echo(line)
    if report["draft"] is not None:
        from edgekit.cli.bench_draft import print_drafts

        print_drafts(report["draft"])


def _row(values: dict[str, Any], factor: float, unit: str) -> tuple[str, ...]:
    numbers = (values[name] for name in ("median", "mean", "stdev", "min"))
    return (*("-" if number is None else f"{number * factor:.1f}" for number in numbers), unit)


def _remarks(report: dict[str, Any]) -> list[str]:
    """Memory, bound, energy and noise, as far as they can be told here."""
    from edgekit.benchmark.energy import energy_lines

    lines = []
    memory = report["memory"]
    if memory["measured"] is not None:
        lines.append(
            f"memory: peak {_megabytes(memory['measured']['peak'])}, "
            f"{_megabytes(memory['loaded']['peak'])} once loaded "
            f"(resident, mapped weights included; weight files {_megabytes(memory['weight_file_bytes'])})"
        )
    bandwidth = report["read_bandwidth_bytes_per_s"]
    for row in report["decodes"]:
        if row["roofline"] is not None:
            lines.append(
                f"bound at depth {row['depth']}: {row['roofline']['bytes_per_token'] / 1e6:.1f} MB a token at "
                f"{bandwidth / 1e9:.1f} GB/s take {row['roofline']['bound_s_per_token'] * 1e3:.1f} ms; "
                f"{row['roofline']['attained']:.0%} reached"
            )
    if bandwidth is not None:
        lines.append(f"bandwidth: {report['read_bandwidth_method']}")
    lines += energy_lines(report)
    noise = report["others_cpu_share"]
    if noise is not None:
        lines.append(
            f"noise: other processes took {noise['mean']:.0%} of the processors on average, "
            f"{max(noise['samples']):.0%} in the worst repetition"
        )
    return lines


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
