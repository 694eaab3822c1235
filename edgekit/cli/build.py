"""Build the engine of a bundle for a device."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.build_progress import CHOICES
from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.build.bundle_engine import BuildRequest, PreparedBuild
    from edgekit.bundle import Bundle, EngineEntry

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class MemorySize(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: "4GB", "800MB" or "4000000000"."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", str(value).strip().lower())
        if found is None or not float(found[1]):
            self.fail(f"{value!r} is no size in bytes: write for example 4GB or 800MB", param, ctx)
        return int(float(found[1]) * _UNITS[found[2]])


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME", required=True, help="What to build for; `edgekit devices list` names them.")
@click.option(
    "--max-input-len", type=click.IntRange(min=1), metavar="TOKENS", help="Longest piece of a prompt.  [default: 512]"
)
@click.option(
    "--max-kv-cache-capacity",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Most tokens in all.  [default: what bundle and device allow]",
)
@click.option("--max-batch-size", type=click.IntRange(min=1), metavar="N", help="Sequences at once.  [default: 1]")
@click.option(
    "--max-draft-len",
    type=click.IntRange(min=0),
    metavar="TOKENS",
    help="Longest draft that is verified in one step.  [default: what the bundle's heads draft, or 4]",
)
@click.option("--weight-streaming", is_flag=True, help="Weights may stay in host memory at run time.")
@click.option("--refit", is_flag=True, help="Weights can be replaced in the engine.")
@click.option("--strip", is_flag=True, help="Leave the weights out of the engine.")
@click.option("--backend", metavar="NAME", help="tensorrt-rtx or tensorrt.  [default: the device's own]")
@click.option(
    "--plugin-library",
    type=click.Path(path_type=Path),
    help="Plugin library for custom operators.  [default: compiled here with nvcc]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="KIT",
    help="Make a device kit there: what the device needs to build the engine itself, for devices that have to.",
)
@click.option("--name", metavar="TEXT", help="The engine's name in the bundle.  [default: sm<CC>-<dtype>]")
@click.option("--memory-limit", type=MemorySize(), metavar="SIZE", help="Most memory of the build, for example 4GB.")
@click.option("--cache/--no-cache", default=True, help="Look for engines built before, and keep this one.")
@click.option("--rebuild", is_flag=True, help="Build even what is there already.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan of the build and stop.")
@click.option(
    "--progress", type=click.Choice(CHOICES), default="auto", show_default=True, help="How the build is shown."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(bundle: Path, output: Path | None, progress: str, dry_run: bool, as_json: bool, **choices: Any) -> None:
    """Build the engine of a bundle for a device, and put it into the bundle.

    Everything is checked before the build starts: device, form, weights' type, every operator, sizes, disk and memory.
    The build runs in a process whose memory is watched; the bundle changes in one step when the engine is written.

    TensorRT builds for a Jetson on the Jetson only. With -o KIT all that this takes is put into a directory to copy
    there and run with one command.
    """
    from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
    from edgekit.bundle import read_bundle, require_kind
    from edgekit.cli.build_progress import displayed_build
    from edgekit.cli.planned_build import beside, beside_rows, expected_seconds, planned_line
    from edgekit.cli.table import print_table

    request = _request(choices)
    if output is not None:
        _refuse_what_a_kit_has_not(choices, progress)
    opened = read_bundle(bundle, verify="full", engines=False)
    require_kind(opened, "decoder", "an engine")
    if output is not None:
        _make_kit(opened, request, output, as_json, dry_run=dry_run)
        return
    prepared = prepared_build(opened, request, lambda text: click.echo(text, err=True))
    if prepared.note:
        click.echo(f"note: {prepared.note}", err=True)
    if dry_run:
        _print_plan(prepared, as_json)
        return
    if prepared.same is None or request.rebuild:
        click.echo(planned_line(prepared), err=True)
    with displayed_build(progress, expected_seconds(prepared)) as watch:
        entry, origin = engine_from_bundle(prepared, watch=watch)
    if as_json:
        build = beside(prepared.planned, entry)
        facts = {"bundle": str(bundle), "from": origin, "engine": entry.to_dict(), "build": build}
        click.echo(json.dumps(facts, indent=2))
        return
    for line in engine_lines(entry):
        click.echo(line)
    print_table(("", "planned", "measured", "measured / planned"), beside_rows(prepared.planned, entry))
    click.echo(f"{bundle / entry.file}: {_ORIGINS[origin]}")
    click.echo(f"next: on {prepared.request.device.title}: edgekit chat {bundle} --backend tensorrt")


_ORIGINS = {
    "built": "built and put into the bundle",
    "cache": "built before, taken from the cache and put into the bundle",
    "bundle": "already there, nothing to do (--rebuild builds it again)",
}


#: What is of a build here, by its option; with -o the build is the device's.
_OF_BUILDS_HERE = ("weight_streaming", "refit", "strip", "name", "memory_limit", "rebuild")


def _refuse_what_a_kit_has_not(choices: dict[str, Any], progress: str) -> None:
    given = [name.replace("_", "-") for name in _OF_BUILDS_HERE if choices[name]]
    given += [] if choices["cache"] else ["no-cache"]
    given += [] if progress == "auto" else ["progress"]
    if given:
        raise click.UsageError(f"--{given[0]} is of a build here: it does not go with -o.")


def _make_kit(bundle: Bundle, request: BuildRequest, output: Path, as_json: bool, *, dry_run: bool) -> None:
    from dataclasses import asdict

    from edgekit.kit.document import RUN
    from edgekit.kit.make import KitRequest, checked_kit, make_kit

    if dry_run:
        software, limits, plan = checked_kit(bundle, request)
        if as_json:
            about = {"software": software.name, "tensorrt": software.tensorrt, **asdict(limits), "plan": plan}
            click.echo(json.dumps({"kit": str(output), "about": about}, indent=2))
            return
        click.echo(f"a kit for {request.device.title}, {software.name} (TensorRT {software.tensorrt}), is not made")
        click.echo(_plan_of_kit(plan))
        return
    kit = make_kit(bundle, KitRequest(request), output, lambda text: click.echo(text, err=True))
    about = {key: value for key, value in asdict(kit.manifest).items() if key not in ("files", "profiles")}
    if as_json:
        click.echo(json.dumps({"kit": str(output), "sha256": kit.sha256, "about": about}, indent=2))
        return
    size = sum(entry.bytes for entry in kit.manifest.files)
    click.echo(f"{output}: {counted(len(kit.manifest.files), 'files')}, {size / 1e6:,.0f} MB")
    click.echo(f"for {request.device.title}, {kit.manifest.software} (TensorRT {kit.manifest.tensorrt})")
    if kit.manifest.plan is not None:
        click.echo(_plan_of_kit(kit.manifest.plan))
    click.echo(f"next: copy it to the device and run there: ./{output.name}/{RUN}")


def _plan_of_kit(plan: dict[str, Any]) -> str:
    from edgekit.plan.words import gigabytes

    memory, build = plan["memory"], plan["build"]["memory"]
    return (
        f"planned: it {plan['verdict']['run']}: {gigabytes(memory['total']['value'])} of "
        f"{gigabytes(memory['available'])} to run; to build there, {gigabytes(build['value'])} "
        f"({gigabytes(build['low'])} to {gigabytes(build['high'])}): {plan['verdict']['build']}"
    )


def _request(choices: dict[str, Any]) -> BuildRequest:
    from edgekit.build.bundle_engine import BuildRequest
    from edgekit.device.profile import device_profile

    limits = ("max_batch_size", "max_input_len", "max_kv_cache_capacity", "max_draft_len")
    return BuildRequest(
        device=device_profile(choices["device"]),
        limits={name: choices[name] for name in limits if choices[name] is not None},
        options=tuple(name for name in ("refit", "strip", "weight_streaming") if choices[name]),
        backend=choices["backend"],
        name=choices["name"],
        library=choices["plugin_library"],
        memory_limit_bytes=choices["memory_limit"],
        cache=choices["cache"],
        rebuild=choices["rebuild"],
    )


def _print_plan(prepared: PreparedBuild, as_json: bool) -> None:
    from dataclasses import asdict

    from edgekit.cli.planned_build import planned_line

    limits = asdict(prepared.limits)
    if as_json:
        facts = {
            "bundle": str(prepared.bundle.path),
            "engine": prepared.name,
            "backend": prepared.backend.name,
            "backend_version": prepared.backend_version,
            "limits": limits,
            "cache_key": prepared.key,
            "planned": prepared.planned.facts(),
            "seconds_before": prepared.seconds_before,
        }
        click.echo(json.dumps(facts, indent=2))
        return
    by = f"{prepared.backend.name} {prepared.backend_version}"
    click.echo(f"engine {prepared.name} for {prepared.request.device.title}, by {by}")
    click.echo(", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in limits.items()))
    click.echo(planned_line(prepared))


def engine_lines(entry: EngineEntry) -> list[str]:
    """What an engine is, in two columns."""
    from edgekit.cli.engine_rows import engine_rows

    rows = engine_rows(entry)
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {text}" for label, text in rows]
