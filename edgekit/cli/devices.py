"""The devices that edgekit knows, and the one it runs on."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Tell what is known of devices, and which one this is.

    A device is a file of devices/, with a source for each fact; devices/README.md explains the fields.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the profiles as JSON.")
def list_devices(as_json: bool) -> None:
    """List the known devices."""
    from edgekit.cli.device_rows import HEADINGS, list_row, profile_document
    from edgekit.cli.table import print_table
    from edgekit.device.profile import device_names, device_profile

    profiles = [device_profile(name) for name in device_names()]
    if as_json:
        click.echo(json.dumps({"devices": [profile_document(profile) for profile in profiles]}, indent=2))
        return
    print_table(HEADINGS, [list_row(profile) for profile in profiles])


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show all facts of the device NAME, with their units and sources."""
    from edgekit.cli.device_rows import profile_document, show_rows
    from edgekit.device.profile import device_profile

    profile = device_profile(name)
    if as_json:
        click.echo(json.dumps(profile_document(profile), indent=2))
        return
    click.echo(click.style(f"{profile.name}: {profile.title}", bold=True))
    rows = show_rows(profile)
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"  {label:<{width}}  {value}".rstrip())
    click.echo(click.style("sources", bold=True))
    for field, source in profile.sources.items():
        click.echo(f"  {field}: {source}")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def probe(as_json: bool) -> None:
    """Tell which known device this machine is, and where it deviates from its profile."""
    from edgekit.device.probe import probe as probe_machine

    found = probe_machine()
    if as_json:
        documents = [
            {
                "kind": device.kind,
                "name": device.name,
                "facts": device.facts,
                "profile": device.profile.name if device.profile else None,
                "power_mode": device.mode.name if device.mode else None,
                "deviations": list(device.deviations),
            }
            for device in found
        ]
        click.echo(json.dumps({"devices": documents}, indent=2))
        return
    for device in found:
        click.echo(click.style(f"{device.kind}: {device.name}", bold=True))
        width = max(len(label) for label in device.facts)
        for label, value in device.facts.items():
            click.echo(f"  {label:<{width}}  {value}")
        if device.profile is not None:
            click.echo(f"  is {device.profile.name} (edgekit devices show {device.profile.name})")
            for deviation in device.deviations:
                click.echo(f"  deviates: {deviation}")
        elif device.kind != "cpu":
            click.echo("  no known device is this one; devices/README.md tells how to add it")
        else:
            click.echo("  no accelerator that edgekit knows how to read: bundles run on the CPU")


@command.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def validate(files: tuple[Path, ...], as_json: bool) -> None:
    """Check profiles: the FILES given, or all that edgekit knows.

    Every field must be known, of its type and sourced, and the figures must agree with each other.
    """
    from edgekit.device.physics import contradictions
    from edgekit.device.profile import DEVICES
    from edgekit.device.profile_file import profile_from_file
    from edgekit.errors import DeviceError

    results: list[dict[str, object]] = []
    failures: list[DeviceError] = []
    for path in files or sorted(DEVICES.glob("*.toml")):
        try:
            profile = profile_from_file(path)
            if found := contradictions(profile):
                raise DeviceError(
                    "the figures of a profile must agree with each other", f"{path}: {found[0]}", "correct one of them"
                )
        except DeviceError as error:
            failures.append(error)
            results.append({"file": str(path), "ok": False, "rule": error.rule, "found": error.fact})
            continue
        results.append({"file": str(path), "ok": True})
    if as_json:
        click.echo(json.dumps({"ok": not failures, "files": results}, indent=2))
    else:
        for result in results:
            click.echo(f"{result['file']}: ok" if result["ok"] else f"{result['file']}: FAILED: {result['rule']}")
    if failures:
        raise failures[0]
