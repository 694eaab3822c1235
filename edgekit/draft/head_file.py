"""Draft heads on disk: one safetensors file, whose metadata holds their sizes and how they came about.

Tensors: those of `DraftHeads` in float16; `vocabulary`, int32 [D]: the tokens that can be drafted, ascending; and the
token table [V, token_rank] as `token_table`, int8, times `token_scale`, float16 [V]: rounded to 1/127 of each row's
largest number, since it is the largest part and needs no more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.draft.config import DraftConfig
from edgekit.draft.heads import DraftHeads
from edgekit.errors import CheckpointError
from edgekit.files import atomic_write

VOCABULARY, TABLE, SCALE = "vocabulary", "token_table", "token_scale"
_KIND, _RECORD = "edgekit-draft-heads", "edgekit"
_AGAIN = "train them again: edgekit draft train"


@dataclass
class DraftFile:
    """Heads with what belongs to them.

    Attributes:
        table: float32 [V, token_rank].
        vocabulary: int64 [D], ascending.
        record: how they came about: "model" says whose they are, "acceptance" what they reached.
    """

    heads: DraftHeads
    table: Tensor
    vocabulary: Tensor
    record: dict[str, Any] = field(default_factory=dict)


def write_heads(path: Path, found: DraftFile) -> None:
    """Write the file at once."""
    from safetensors.torch import save

    tensors = {name: value.detach().half().contiguous() for name, value in found.heads.state_dict().items()}
    scale = (found.table.abs().amax(1).clamp(min=1e-3) / 127).half()
    tensors[TABLE] = (found.table / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
    tensors[SCALE] = scale
    tensors[VOCABULARY] = found.vocabulary.to(torch.int32).contiguous()
    document = {"kind": _KIND, "config": found.heads.config.to_dict(), "record": found.record}
    atomic_write(path, save(tensors, metadata={_RECORD: json.dumps(document)}))


def read_heads(path: Path) -> DraftFile:
    """Read what `write_heads` wrote, as float32. Raises CheckpointError for anything else."""
    from safetensors import SafetensorError, safe_open

    rule = "draft heads are a file that edgekit draft train wrote"
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {}).get(_RECORD, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(rule, f"{path}: {error}", _AGAIN) from error
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise CheckpointError(rule, f"{path} is another safetensors file", _AGAIN)
    config = DraftConfig.from_dict(document.get("config", {}))
    vocabulary = tensors.pop(VOCABULARY, torch.empty(0)).long()
    if len(vocabulary) != config.vocabulary or bool((vocabulary.diff() <= 0).any()):
        raise CheckpointError(rule, f"{path}: its vocabulary is not {config.vocabulary} ascending tokens", _AGAIN)
    codes, scale = tensors.pop(TABLE, torch.empty(0, 0)), tensors.pop(SCALE, torch.empty(0))
    if codes.dtype != torch.int8 or codes.shape != (len(scale), config.token_rank) or not len(scale):
        raise CheckpointError(rule, f"{path}: its token table is {codes.dtype} {list(codes.shape)}", _AGAIN)
    heads = DraftHeads(config)
    try:
        heads.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(rule, f"{path}: {str(error).splitlines()[-1].strip()}", _AGAIN) from error
    return DraftFile(heads, codes.float() * scale.float()[:, None], vocabulary, document.get("record") or {})
