"""Draft heads that are to go with a checkpoint: read, and held to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.checkpoint import Checkpoint
from edgekit.draft.head_file import DraftFile, read_heads, shortened
from edgekit.errors import ExportError
from edgekit.files import sha256_of
from edgekit.layers.decoder import Decoder

#: Components that are computed unless asked otherwise: docs/draft-graph.md has what each costs.
DEFAULT_COMPONENTS = 2


@dataclass(frozen=True)
class Heads:
    """Heads that fit a checkpoint.

    Attributes:
        components: how many the draft graph computes, from 1 to r.
        of_checkpoint: whether they were trained on these very files; None where their record does not say.
    """

    path: Path
    found: DraftFile
    components: int
    of_checkpoint: bool | None

    def provenance(self) -> dict[str, Any]:
        """For the manifest: the file, and what it says of its making."""
        return {
            "path": self.path.name,
            "location": str(self.path.absolute()),
            "sha256": sha256_of(self.path),
            "of_checkpoint": self.of_checkpoint,
            "record": self.found.record,
        }


def heads_for(
    checkpoint: Checkpoint, model: Decoder, path: Path, components: int | None, tokens: int | None = None
) -> Heads:
    """Read heads and check that they can draft for a model.

    Args:
        model: of the checkpoint, on the meta device.
        components: how many the draft graph computes; None for the default.
        tokens: of how many it speaks; None for all that the heads do.

    Raises:
        CheckpointError: it is no file of heads.
        ExportError: they are of a model of other sizes, the model caps its logits, which heads do not, or there are
            fewer components or tokens.
    """
    found = read_heads(path)
    config = found.heads.config
    vocab, hidden = model.model.embed_tokens.weight.shape
    layers = len(model.model.layers)
    highest = int(found.vocabulary[-1])
    for fits, fact in (
        (config.hidden_size == hidden, f"they are for a hidden size of {config.hidden_size}, the model has {hidden}"),
        (
            list(config.feature_layers) == sorted({*config.feature_layers}) and config.feature_layers[-1] <= layers,
            f"they read after layers {', '.join(map(str, config.feature_layers))}, the model has {layers}",
        ),
        (
            int(found.vocabulary[0]) >= 0 and highest < vocab,
            f"they draft tokens up to {highest}, the model's vocabulary ends at {vocab - 1}",
        ),
        (len(found.table) == vocab, f"they know {len(found.table):,} tokens, the model has {vocab:,}"),
    ):
        if not fits:
            raise ExportError(
                "draft heads belong to the model that they were trained on",
                f"{path}: {fact}",
                f"give the heads of {checkpoint.path.name}, or train some: edgekit draft train",
            )
    if model.logit_softcap > 0:
        raise ExportError(
            "draft heads are for models whose logits are plain products with the head",
            f"this one caps them at {model.logit_softcap:g} (final_logit_softcapping)",
            "export it without --draft",
        )
    wanted = components if components is not None else min(DEFAULT_COMPONENTS, config.rank)
    if not 1 <= wanted <= config.rank:
        raise ExportError(
            "a draft graph computes one or more of the heads' components",
            f"{wanted} were asked for, {path} has {config.rank}",
            f"choose --draft-components between 1 and {config.rank}",
        )
    if tokens is not None and not 1 <= tokens <= config.tokens:
        raise ExportError(
            "a draft graph speaks of one or more of the tokens that the heads speak of",
            f"{tokens} were asked for, {path} has {config.tokens}",
            f"choose --draft-tokens between 1 and {config.tokens}",
        )
    if tokens is not None:
        found = shortened(found, tokens)
    return Heads(path, found, wanted, _of_checkpoint(found.record, checkpoint))


def _of_checkpoint(record: dict[str, Any], checkpoint: Checkpoint) -> bool | None:
    """Whether the record names the checkpoint's files, by what is in them."""
    model = record.get("model")
    files = model.get("files") if isinstance(model, dict) else None
    if not isinstance(files, list):
        return None
    trained_on = {entry.get("sha256") for entry in files if isinstance(entry, dict)}
    return trained_on == {entry["sha256"] for entry in checkpoint.files()}
