"""Tell what a checkpoint, a bundle or an operator holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekit.cli.cache_rows import beside, checkpoint_caches, is_encoder
from edgekit.words import counted


@click.command()
@click.argument("checkpoint_or_bundle", metavar="CHECKPOINT_OR_BUNDLE|op")
@click.argument("name", required=False)
@click.option("--template", is_flag=True, help="Print the chat template, and nothing else.")
@click.option("--offline", is_flag=True, help="Fetch nothing; fail if the checkpoint is not in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(checkpoint_or_bundle: str, name: str | None, template: bool, offline: bool, as_json: bool) -> None:
    """Tell what a checkpoint or a bundle holds: architecture, sizes, types, tokenizer, memory per token.

    CHECKPOINT_OR_BUNDLE is a GGUF file, a Hugging Face directory, a known name, OWNER/NAME, or a bundle.

    `edgekit inspect op` lists the custom operators, and `edgekit inspect op NAME` shows one of them: operands,
    attributes, tolerances, and the files of all of its forms. (A directory called op is `./op`.)
    """
    if checkpoint_or_bundle == "op":
        _inspect_op(name, template, as_json)
        return
    if name is not None:
        raise click.UsageError(f"Got unexpected extra argument ({name}): only `inspect op` takes a NAME.")
    if (Path(checkpoint_or_bundle) / "manifest.json").is_file():
        _inspect_bundle(Path(checkpoint_or_bundle), template, as_json)
        return
    from edgekit.checkpoint import open_checkpoint
    from edgekit.checkpoint.compressed import CompressedCheckpoint
    from edgekit.checkpoint.compressed_summary import compression_summary
    from edgekit.checkpoint.summary import checkpoint_summary

    checkpoint = open_checkpoint(checkpoint_or_bundle, offline=offline)
    if template:
        _print_template(checkpoint.tokenizer_files().get("chat_template.jinja"), checkpoint_or_bundle)
        return
    summary = checkpoint_summary(checkpoint)
    encoder = is_encoder(summary["model_type"])
    summary["kv_cache_bytes_per_token"] = {} if encoder else checkpoint_caches(checkpoint.config)
    if isinstance(checkpoint, CompressedCheckpoint):
        from edgekit.cli.compressed_rows import product_times

        summary["compression"] = compression_summary(checkpoint, product_times(checkpoint))
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    _print_rows(_checkpoint_rows(summary))
    if "compression" in summary:
        from edgekit.cli.compressed_rows import compressed_lines, compressed_rows
        from edgekit.cli.table import print_table

        _print_rows(compressed_lines(summary["compression"]))
        headings, *rows = compressed_rows(summary["compression"])
        print_table(headings, rows)


def _inspect_op(name: str | None, template: bool, as_json: bool) -> None:
    from edgekit.cli.inspect_op import inspect_operator, inspect_operators

    if template:
        raise click.UsageError("An operator has no chat template: leave --template out.")
    if name is None:
        inspect_operators(as_json)
    else:
        inspect_operator(name, as_json)


def _inspect_bundle(path: Path, template: bool, as_json: bool) -> None:
    from edgekit.bundle import read_bundle

    bundle = read_bundle(path, verify="size")
    if template:
        file = path / "chat_template.jinja"
        _print_template(file.read_bytes() if file.is_file() else None, str(path))
        return
    manifest = dict(bundle.manifest.raw)
    if as_json:
        click.echo(json.dumps({"kind": "bundle", "path": str(path), **manifest}, indent=2))
    else:
        from edgekit.cli.draft_rows import draft_rows
        from edgekit.cli.engine_rows import engine_rows

        engines = [row for entry in bundle.manifest.engines for row in engine_rows(entry)]
        draft = draft_rows(bundle.manifest.draft) if bundle.manifest.draft is not None else []
        _print_rows([*_bundle_rows(path, manifest), *draft, *engines])


def _print_template(template: bytes | None, where: str) -> None:
    if template is None:
        from edgekit.errors import CheckpointError

        raise CheckpointError(
            "a chat template must be in the checkpoint or bundle to be printed",
            f"{where} has none",
            "base models have none: use `edgekit run --raw` with them",
        )
    click.echo(template.decode("utf-8"), nl=not template.endswith(b"\n"))


def _print_rows(rows: list[tuple[str, str]]) -> None:
    """Label and value in two columns; an empty label continues the row above."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}".rstrip())


def _others(sizes: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if name != "own"}


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _checkpoint_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("path", summary["path"]),
        ("format", summary["format"]),
        ("architecture", summary["model_type"]),
        ("parameters", f"{summary['parameters']:,}"),
        ("size", _megabytes(summary["bytes"])),
    ]
    label = "types"
    for dtype, row in summary["dtypes"].items():
        counts = f"{counted(row['tensors'], 'tensors')}, {counted(row['parameters'], 'parameters')}"
        rows.append((label, f"{dtype}: {counts}, {_megabytes(row['bytes'])}"))
        label = ""
    rows += [(key.replace("_", " "), _plain(value)) for key, value in summary["sizes"].items()]
    for dtype, sizes in summary["kv_cache_bytes_per_token"].items():
        rows.append((f"KV cache {dtype}", "unknown" if sizes is None else beside(sizes["own"], _others(sizes))))
    return rows + _tokenizer_rows(summary)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def _tokenizer_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    tokenizer = summary["tokenizer"]
    if tokenizer is None:
        return [("tokenizer", f"none: {summary['tokenizer_error']}")]
    rows = [
        ("tokenizer", f"{tokenizer['kind']}, {counted(tokenizer['vocabulary'], 'tokens')}"),
        ("special tokens", str(tokenizer["special_tokens"])),
    ]
    roles = ("bos_token", "eos_token", "unk_token", "pad_token")
    rows += [(role.replace("_", " "), tokenizer[role]) for role in roles if role in tokenizer]
    rows.append(("stops at", ", ".join(map(str, tokenizer["eos_token_ids"])) or "nothing"))
    rows.append(("chat template", "yes (--template prints it)" if tokenizer["chat_template"] else "no"))
    return rows


def _bundle_rows(path: Path, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    model, cache = manifest["model"], manifest["cache"]
    rows = [
        ("path", str(path)),
        ("format", f"bundle, schema {manifest['schema']}, written by edgekit {manifest['edgekit']}"),
        ("model", f"{model['name']} ({model['model_type']})"),
        ("form", manifest["form"]),
        ("dtype", manifest["dtype"]),
    ]
    rows += [(key.replace("_", " "), f"{value:,}") for key, value in model.items() if isinstance(value, int)]
    if (encoder := manifest.get("encoder")) is not None:
        from edgekit.cli.export_report import encoder_words

        rows.append(("embeddings", encoder_words(encoder)))
    else:
        own = beside(cache["bytes_per_token"], cache.get("bytes_per_token_of", {}))
        rows.append(("KV cache", f"{cache['kind']}, {cache['dtype']}, {own}"))
    for use in manifest.get("operators") or []:
        rows.append(("custom operator", f"{use['name']} version {use['version']}, {counted(use['nodes'], 'nodes')}"))
    if encoder is None:
        rows.append(("cache capacity", f"at most {cache['capacity_limit']:,} tokens"))
        rows.append(("stops at", ", ".join(map(str, manifest["tokens"]["eos"])) or "nothing"))
    for key, value in (manifest.get("quantization") or {}).items():
        if value not in (None, {}):  # what was not measured
            rows.append((f"quantization {key}".replace("_", " "), _plain(value)))
    label = "files"
    for file in manifest["files"]:
        rows.append((label, f"{file['name']}  {_megabytes(file['bytes'])}"))
        label = ""
    return rows
