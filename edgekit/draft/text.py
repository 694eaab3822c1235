"""The text that heads are trained on: conversations of the model with itself, a text that is given, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.bundle import Bundle, read_bundle
from edgekit.chat.template import template_from_bundle
from edgekit.chat.tokenizer import special_tokens, tokenizer_config, tokenizer_from_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.compress.calibration import whole_text
from edgekit.draft.conversations import conversations, frame_of
from edgekit.errors import ExportError
from edgekit.files import atomic_write
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.session import DecoderSession, session_from_bundle

#: Conversations of a bundle side by side: more are hardly faster.
_ROWS = 48


@dataclass(frozen=True)
class TextOptions:
    """What to train on.

    Attributes:
        text: a text; None for none.
        positions: tokens of conversations of the model with itself; 0 for none.
        length: tokens of a row.
        bundle: of the same model, to talk with; None exports one (int8) for the purpose.
        threads: of that.
        seed: of what is drawn.
    """

    text: str | None = None
    positions: int = 400_000
    length: int = 512
    bundle: Path | None = None
    threads: int | None = None
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """What decides the tokens, for the record."""
        digest = None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()
        return {
            "given": digest,
            "positions": self.positions,
            "length": self.length,
            "seed": self.seed,
            "bundle": None if self.bundle is None else self.bundle.name,
        }


@dataclass(frozen=True)
class Text:
    """Tokens int64 [R, L].

    skip: first tokens of each row that say nothing. ends: tokens that end a text. measured: rows, the first ones, some
    of which are kept back to measure on: conversations, where there are any.
    """

    tokens: npt.NDArray[np.int64]
    skip: int
    ends: Collection[int]
    measured: int


class Talker(Protocol):
    """A model that talks with itself.

    rows: conversations side by side. skip, ends: see `Text`.
    """

    @property
    def rows(self) -> int: ...

    @property
    def skip(self) -> int: ...

    @property
    def ends(self) -> Collection[int]: ...

    def talk(self, index: int, advance: Callable[[int], None]) -> npt.NDArray[np.int64]:
        """The conversations [rows, L] of the batch with that number; `advance` is called with the tokens made."""

    def close(self) -> None:
        """Free what it holds."""


def text_tokens(
    checkpoint: Checkpoint,
    options: TextOptions,
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool],
    talker: Callable[[], Talker] | None = None,
) -> Text | None:
    """The text, from where an earlier run left it; None when stopped.

    Args:
        talker: gives the model that talks; None for a bundle of it.

    Raises:
        ExportError: the text is too short, or the bundle is of another model.
        PromptError: the model has no template that can be used.
    """
    if options.text is None and options.positions == 0:
        raise ExportError("there must be a text to train on", "--positions is 0 and no --text is given")
    given = None
    if options.text is not None:
        rows = whole_text(checkpoint.tokenizer_files()["tokenizer.json"], options.text, options.length).numpy()
        if len(rows) < 2:
            raise ExportError(
                f"a text to train on must hold at least 2 rows of {options.length} tokens", f"it holds {len(rows)}",
                "give a longer text, or a smaller --length",
            )  # fmt: skip
        given = Text(rows, 0, (), len(rows))
    if options.positions == 0 and given is not None:
        return given
    speaker = talker() if talker is not None else BundleTalker(_bundle(checkpoint, options, folder, progress), options)
    try:
        said = _conversations(speaker, options, folder, progress, stop)
    finally:
        speaker.close()
    if said is None or given is None:
        return said
    return Text(np.concatenate([said.tokens, given.tokens]), said.skip, said.ends, said.measured)


def _bundle(checkpoint: Checkpoint, options: TextOptions, folder: Path, progress: Progress) -> Bundle:
    if options.bundle is not None:
        bundle = read_bundle(options.bundle)
        model, config = bundle.manifest.model, checkpoint.config
        if (model.vocab_size, model.layers) != (config["vocab_size"], config["num_hidden_layers"]):
            raise ExportError(
                "the bundle to talk with must be of the checkpoint's model",
                f"{options.bundle} is of {model.name}: {model.layers} layers, {model.vocab_size:,} tokens",
                "give another --bundle, or none",
            )
        return bundle
    from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint

    place = folder / "talker"
    if not place.exists():
        progress.note("exporting the model as int8, to talk with itself")
        bundle_from_checkpoint(checkpoint, place, ExportOptions("int8"), progress=SilentProgress())
    return read_bundle(place)


class BundleTalker:
    """Implements Talker with a bundle, which is opened when the first batch is wanted."""

    rows = _ROWS

    def __init__(self, bundle: Bundle, options: TextOptions) -> None:
        """Raises PromptError: the bundle has no template that can be used."""
        tokenizer, template = tokenizer_from_bundle(bundle), template_from_bundle(bundle)
        names = special_tokens(tokenizer_config(bundle))
        self._frame = frame_of(
            lambda messages, begin: template.render(messages, special_tokens=names, add_generation_prompt=begin),
            tokenizer.encode,
        )
        self.skip, self.ends = len(self._frame.opening), bundle.manifest.tokens.eos
        self._bundle, self._options = bundle, options
        self._session: DecoderSession | None = None

    def talk(self, index: int, advance: Callable[[int], None]) -> npt.NDArray[np.int64]:
        """See Talker."""
        if self._session is None:
            options = self._options
            self._session = session_from_bundle(self._bundle, threads=options.threads, capacity=options.length)
        found = conversations(
            self._session,
            self._frame,
            self.ends,
            rows=self.rows,
            length=self._options.length,
            generator=np.random.default_rng((self._options.seed, index)),
        )
        advance(found.size)
        return found

    def close(self) -> None:
        """See Talker."""
        if self._session is not None:
            self._session.close()


def _conversations(
    talker: Talker, options: TextOptions, folder: Path, progress: Progress, stop: Callable[[], bool]
) -> Text | None:
    count = max(1, -(-options.positions // (talker.rows * options.length)))
    progress.stage("conversations", count * talker.rows * options.length, "tokens")
    found = []
    for index in range(count):
        path = folder / f"conversations.{index}.npy"
        if path.is_file():
            progress.advance(talker.rows * options.length)
        else:
            if stop():
                return None
            _save(path, talker.talk(index, progress.advance))
        found.append(np.load(path, allow_pickle=False))
    rows = np.concatenate(found).astype(np.int64)
    return Text(rows, talker.skip, talker.ends, len(rows))


def _save(path: Path, rows: npt.NDArray[np.int64]) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, rows.astype(np.int32))
    atomic_write(path, buffer.getvalue())
