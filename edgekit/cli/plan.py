"""Tell what a model will cost on a device, before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.plan.plan import Plan


@click.command()
@click.argument("model")
@click.option("--device", metavar="NAME", help="One of `edgekit devices list`.")
@click.option(
    "--dtype", metavar="TYPE", help="Of the weights: fp32, fp16, int8, int4.  [default: that of a bundle, else fp16]"
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Tokens to keep for each sequence.  [default: 4096, or the model's limit]",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences at once.")
@click.option(
    "--max-input-len",
    "max_input",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Most new tokens in one step; longer prompts are read in pieces.  [default: 512]",
)
@click.option(
    "--prompt",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Prompt whose time to first token is told.  [default: 512]",
)
@click.option(
    "--attention",
    type=click.Choice(["own", "tpa"]),
    default="own",
    show_default=True,
    help="tpa: as `edgekit convert --attention tpa` would make it.",
)
@click.option(
    "--cache-ratio", type=float, metavar="X", help="With tpa: bytes of the cache over the original's, e.g. 0.5."
)
@click.option(
    "--draft-tokens",
    type=click.IntRange(1, 32),
    metavar="N",
    help="Tell what drafting N tokens a step wins.  [default: what the draft heads of a bundle propose]",
)
@click.option(
    "--acceptance",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Chance of a drafted token that follows accepted ones.  [default: that of a bundle's heads, else 0.8]",
)
@click.option("--power-mode", metavar="NAME", help="Of the device.  [default: the fastest]")
@click.option("--compare", metavar="D1,D2,...", help="Several devices, in a table.")
@click.option(
    "--html",
    "html_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the plan as a page, too.",
)
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(
    model: str,
    device: str | None,
    compare: str | None,
    power_mode: str | None,
    draft_tokens: int | None,
    acceptance: float | None,
    html_file: Path | None,
    offline: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Tell what a model will cost on a device: memory, build, speed, and what would make it fit.

    MODEL is a config.json, a Hugging Face directory (its weights need not be there), a bundle, a GGUF file, a known
    name, or OWNER/NAME. Neither a GPU nor torch is needed. The exit code is 4 where it does not fit.
    """
    if (device is None) == (compare is None):
        raise click.UsageError("Give either --device NAME or --compare D1,D2,...")
    if compare is not None and not any(name.strip() for name in compare.split(",")):
        raise click.UsageError("--compare needs names of devices, with commas between them.")
    if compare is not None and power_mode is not None:
        raise click.UsageError("--power-mode is of one device: it does not go with --compare.")
    if html_file is not None:
        from edgekit.report.page import check_destination

        check_destination(html_file)
    from edgekit.device.profile import device_profile
    from edgekit.plan.model_sizes import model_sizes
    from edgekit.plan.of_bundle import asked_options
    from edgekit.plan.plan import make_plan
    from edgekit.plan.reading import model_config

    names = [device] if device is not None else [name.strip() for name in (compare or "").split(",") if name.strip()]
    devices = [device_profile(str(name)) for name in names]
    sizes = model_sizes(model_config(model, offline=offline))
    options = asked_options(model, sizes, draft_tokens, acceptance, **choices)
    plans = [make_plan(model, sizes, each, options, power_mode) for each in devices]
    if html_file is not None:
        from edgekit.files import atomic_write
        from edgekit.report.page import html_of
        from edgekit.report.plan_page import plan_page

        atomic_write(html_file, html_of(plan_page(plans)))
        click.echo(f"wrote {html_file}", err=True)
    _print(plans, as_json, compared=compare is not None)
    _refuse(plans)


def _print(plans: list[Plan], as_json: bool, *, compared: bool) -> None:
    from edgekit.cli.plan_text import print_comparison, print_plan

    if as_json:
        from edgekit.plan.facts import plan_facts

        facts = [plan_facts(plan) for plan in plans]
        click.echo(json.dumps(facts if compared else facts[0], indent=2))
    elif compared:
        print_comparison(plans)
    else:
        print_plan(plans[0])


def _refuse(plans: list[Plan]) -> None:
    """DoesNotFit where a model does not fit on any of the devices."""
    if any(plan.fits for plan in plans):
        return
    from edgekit.plan.refusal import does_not_fit

    larger = "choose a larger device, or smaller weights"
    raise does_not_fit(plans[0], larger if plans[1:] else "choose one of the changes above")
