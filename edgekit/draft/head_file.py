"""Draft heads on disk: one safetensors file, whose metadata holds their sizes and how they came about.

Tensors: those of `DraftHeads`, the small ones in float16, the others NAME int8 [..., k] times NAME.scale float16 [...],
rounded to 1/127 of each row's largest number, since a graph that drafts seldom holds more; the token table
[V, token_rank] likewise as `token_table`; and `vocabulary`, int32 [D]: the tokens that can be drafted, ascending.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.draft.config import DraftConfig
from edgekit.draft.heads import DraftHeads
from edgekit.errors import CheckpointError
from edgekit.files import atomic_write

VOCABULARY, TABLE, SCALE = "vocabulary", "token_table", ".scale"
#: Numbers of a tensor from which it is rounded.
_LARGE = 4096
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


def shortened(found: DraftFile, tokens: int) -> DraftFile:
    """Heads that speak of the first `tokens` only: each position's weights are its own, so nothing else changes."""
    config = replace(found.heads.config, tokens=tokens)
    state = found.heads.state_dict()
    of_positions = ("down", "up", "component_down", "component_up")
    heads = DraftHeads(config)
    heads.load_state_dict({name: value[:tokens] if name in of_positions else value for name, value in state.items()})
    acceptance = found.record.get("acceptance") or {}
    record = {**found.record, "acceptance": {way: chances[:tokens] for way, chances in acceptance.items()} or None}
    return DraftFile(heads.eval().requires_grad_(False), found.table, found.vocabulary, record)


def write_heads(path: Path, found: DraftFile) -> None:
    """Write the file at once."""
    from safetensors.torch import save

    tensors = {}
    for name, value in {**found.heads.state_dict(), TABLE: found.table}.items():
        if name == TABLE or value.numel() >= _LARGE:
            tensors[name], tensors[name + SCALE] = _rounded(value.detach())
        else:
            tensors[name] = value.detach().half().contiguous()
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
    scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith(SCALE)}
    values = {}
    for name, codes in tensors.items():
        scale = scales.get(name + SCALE)
        rows = None if scale is None else scale.shape
        if rows != (codes.shape[:-1] if codes.dtype == torch.int8 else None):
            fact = f"{path}: {name} is {codes.dtype} {list(codes.shape)}, its scales are {rows and list(rows)}"
            raise CheckpointError(rule, fact, _AGAIN)
        values[name] = codes.float() if scale is None else codes.float() * scale.float()[..., None]
    table, heads = values.pop(TABLE, torch.empty(0, 0)), DraftHeads(config)
    if table.dim() != 2 or table.shape[1] != config.token_rank or not len(table):
        raise CheckpointError(rule, f"{path}: its token table is {list(table.shape)}", _AGAIN)
    try:
        heads.load_state_dict(values)
    except RuntimeError as error:
        raise CheckpointError(rule, f"{path}: {str(error).splitlines()[-1].strip()}", _AGAIN) from error
    return DraftFile(heads, table, vocabulary, document.get("record") or {})


def _rounded(value: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [..., k] and the scale of each row, float16 [...]."""
    # The scale first as it is stored, and no smaller than half precision holds without loss.
    scale = (value.abs().amax(-1) / 127).clamp(min=1e-5).half()
    codes = (value / scale.float()[..., None]).round().clamp(-127, 127)
    return codes.to(torch.int8).contiguous(), scale.contiguous()
