"""Make embeddings of texts."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.words import counted

if TYPE_CHECKING:
    from edgekit.runtime.encoder_session import Embeddings


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--file",
    "text_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Texts from a UTF-8 file, one a line.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write them to a .npy file, float32 [n, D]."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Texts run at once.")
@click.option("--backend", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: one per physical core]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No statistics on stderr.")
def command(
    bundle: Path,
    texts: tuple[str, ...],
    text_file: Path | None,
    output: Path | None,
    batch_size: int,
    backend: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make embeddings of texts with an encoder's bundle.

    Without TEXT and --file, each line of stdin is a text. Each embedding is a line of numbers on stdout, in the order
    of the texts, unless --output or --json says otherwise. Texts that are too long are cut, and counted on stderr.
    """
    if texts and text_file is not None:
        raise click.UsageError("Give TEXT or --file, not both.")
    if output is not None and as_json:
        raise click.UsageError("--output and --json exclude each other.")
    if output is not None and output.suffix != ".npy":
        raise click.UsageError("--output must end in .npy.")
    from edgekit.bundle import read_bundle, require_kind
    from edgekit.contract import KIND_ENCODER

    opened = read_bundle(bundle)
    require_kind(opened, KIND_ENCODER, "making embeddings")
    given = list(texts) or _lines(text_file)

    from edgekit.runtime.encoder_session import EncoderSession
    from edgekit.runtime.encoder_text import encoder_tokenizer

    encoded = encoder_tokenizer(opened).encode(given)
    session = EncoderSession(opened, backend=backend, threads=threads)
    start = time.perf_counter()
    embeddings = session.embed(encoded.tokens, batch_size)
    seconds = time.perf_counter() - start
    counts = [len(tokens) for tokens in encoded.tokens]
    if output is not None:
        _write(output, embeddings)
        click.echo(output)
    elif as_json:
        rows = [[float(f"{value:.8g}") for value in row] for row in embeddings.tolist()]
        document = {"dimensions": session.dimensions, "tokens": counts, "cut": encoded.cut, "embeddings": rows}
        click.echo(json.dumps({"bundle": str(bundle), **document, "seconds": round(seconds, 4)}))
    else:
        for row in embeddings.tolist():
            click.echo(" ".join(f"{value:.8g}" for value in row))
    if encoded.cut:
        click.echo(
            f"{len(encoded.cut)} of {counted(len(given), 'texts')} were cut to {counted(session.max_tokens, 'tokens')}",
            err=True,
        )
    if not quiet:
        click.echo(
            f"{counted(len(given), 'texts')}, {counted(sum(counts), 'tokens')}, {seconds:.2f} s, "
            f"{len(given) / seconds:.1f} texts/s, {session.description}",
            err=True,
        )


def _lines(file: Path | None) -> list[str]:
    """The texts of a file or of stdin. Raises PromptError when there are none."""
    from edgekit.errors import PromptError

    where = "stdin" if file is None else str(file)
    content = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        # By line ends alone: splitlines also parts at form feeds and other marks that stand within a line.
        lines = [line.rstrip("\n") for line in io.StringIO(content.decode("utf-8"), newline=None)]
    except UnicodeDecodeError as error:
        raise PromptError(
            "texts must be UTF-8", f"byte {error.start} of {where} is not", "convert it to UTF-8"
        ) from error
    if not lines:
        raise PromptError("there must be a text to embed", f"{where} is empty", "give TEXT, --file, or pipe lines in")
    return lines


def _write(path: Path, embeddings: Embeddings) -> None:
    import numpy as np

    from edgekit.files import atomic_write

    buffer = io.BytesIO()
    np.save(buffer, embeddings)
    atomic_write(path, buffer.getvalue())
