"""Fetch a checkpoint into the cache."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("checkpoint", required=False)
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--list", "list_known", is_flag=True, help="List the known names instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(checkpoint: str | None, offline: bool, list_known: bool, as_json: bool) -> None:
    """Fetch a checkpoint into the cache and print where it lies.

    CHECKPOINT is a known name or OWNER/NAME on the Hugging Face hub. Only weights as safetensors or GGUF, configuration
    and tokenizer are fetched, nothing that could run. A known model is checked by its SHA-256.
    """
    if list_known:
        _print_known(as_json)
        return
    if checkpoint is None:
        raise click.UsageError("Missing argument 'CHECKPOINT'. --list shows the known names.")
    from edgekit.checkpoint import pull
    from edgekit.checkpoint.reference import local_path

    local = local_path(checkpoint) is not None
    path = pull(checkpoint, offline=offline)
    if local:
        click.echo(f"{checkpoint} is a local path: it needs no pull", err=True)
    if as_json:
        click.echo(json.dumps({"checkpoint": checkpoint, "path": str(path), "local": local}, indent=2))
    else:
        click.echo(path)


def _print_known(as_json: bool) -> None:
    from edgekit.checkpoint.known_models import known_model, known_names

    models = [known_model(name) for name in known_names()]
    if as_json:
        rows = [
            {"name": m.name, "title": m.title, "bytes": m.bytes, "licence": m.licence, "source": m.source}
            for m in models
        ]
        click.echo(json.dumps({"known": rows}, indent=2))
        return
    width = max(len(m.name) for m in models)
    for m in models:
        click.echo(f"{m.name:<{width}}  {m.bytes / 1e6:7.0f} MB  {m.licence}  {m.title}")
