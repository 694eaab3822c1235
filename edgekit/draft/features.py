"""What draft heads are trained on: a frozen model's hidden states over a text, computed once and kept on disk.

Files of a cache: features.npy float16 [R, L, F], the residual stream of the layers that the heads read, side by side;
totals.npy float32 [R, L], log of the sum of exp of all logits; greedy.npy int32 [R, L], the likeliest next token.
`rows.json` says how many rows are whole, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edgekit.errors import DoesNotFit
from edgekit.files import atomic_write
from edgekit.heal.full_attention import head_of, layer_output, layers_of
from edgekit.layers.decoder import Decoder

_FILES = {"features": np.float16, "totals": np.float32, "greedy": np.int32}
_ROWS = "rows.json"
_LOGITS_AT_ONCE = 256
#: Architectures whose layers `edgekit.heal.full_attention` computes; the others take their own, slower way.
_FAST = ("llama", "qwen2", "llama_tpa")
_HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FeatureCache:
    """The arrays of a cache, mapped, and the tokens int32 [R, L] that they are of: see the module's text."""

    tokens: npt.NDArray[np.int32]
    features: npt.NDArray[np.float16]
    totals: npt.NDArray[np.float32]
    greedy: npt.NDArray[np.int32]


def feature_bytes(positions: int, width: int) -> int:
    """Bytes of a cache of so many positions, each of `width` features."""
    return positions * (2 * width + 12)


def cached_features(
    folder: Path,
    model: Decoder,
    tokens: npt.NDArray[np.int64],
    layers: tuple[int, ...],
    *,
    advance: Callable[[int], None] = lambda count: None,
    stop: Callable[[], bool] = lambda: False,
) -> FeatureCache | None:
    """The cache in `folder`, made or completed row by row; None when stopped before it was whole.

    Args:
        model: on the CPU, float32; where its matrices are bfloat16 (`narrowed`), products are made in that type.
        tokens: int64 [R, L]; the same as those a cache there was begun with (the caller sees to that).
        layers: after how many layers the residual stream is kept.
        advance: called with the positions done, those of an earlier run first.
        stop: asked before each row.

    Raises:
        DoesNotFit: the disk is too small.
    """
    rows, length = tokens.shape
    width = len(layers) * model.model.embed_tokens.weight.shape[1]
    _check_space(folder, feature_bytes(tokens.size, width))
    folder.mkdir(parents=True, exist_ok=True)
    done = int(json.loads((folder / _ROWS).read_text())) if (folder / _ROWS).is_file() else 0
    shapes = {"features": (rows, length, width), "totals": (rows, length), "greedy": (rows, length)}
    arrays: dict[str, Any] = {}
    for name, kind in _FILES.items():
        path = folder / f"{name}.npy"
        arrays[name] = np.lib.format.open_memmap(
            path, mode="r+" if done else "w+", dtype=kind, shape=None if done else shapes[name]
        )
    advance(done * length)
    for row in range(done, rows):
        if stop():
            return None
        found = _row(model, torch.from_numpy(tokens[row : row + 1]), layers)
        for name, value in found.items():
            arrays[name][row] = value
            arrays[name].flush()
        atomic_write(folder / _ROWS, json.dumps(row + 1))
        advance(length)
    return FeatureCache(tokens.astype(np.int32), **arrays)


def narrowed(model: Decoder, model_type: str) -> bool:
    """Store matrices as bfloat16 where `fast_streams` knows the architecture; whether it does."""
    known = model_type in _FAST
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if known and parameter.dim() == 2:
            parameter.data = parameter.data.bfloat16()
    return known


def _row(model: Decoder, ids: Tensor, layers: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """The entries of one row [1, L]."""
    features, totals, greedy = states_along(model, ids, layers)
    features = features.clamp(-_HALF_MAX, _HALF_MAX)
    return {
        "features": features[0].half().numpy(),
        "totals": totals[0].numpy(),
        "greedy": greedy[0].int().numpy(),
    }


@torch.no_grad()
def states_along(model: Decoder, ids: Tensor, layers: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Features float32 [R, L, F], totals [R, L] and greedy [R, L] along texts [R, L]: see the module's text."""
    head = head_of(model)
    streams = fast_streams(model, ids) if head.dtype == torch.bfloat16 else exact_streams(model, ids)
    kept, hidden = [], ids
    for count, hidden in enumerate(streams, 1):
        if count in layers:
            kept.append(hidden.float())
    final = model.model.norm(hidden.float()).flatten(0, 1)
    totals, greedy = [], []
    for part in torch.split(final, _LOGITS_AT_ONCE if final.device.type == "cpu" else 16 * _LOGITS_AT_ONCE):
        logits = functional.linear(part.to(head.dtype), head).float()
        totals.append(logits.logsumexp(-1))
        greedy.append(logits.argmax(-1))
    return torch.cat(kept, -1), torch.cat(totals).view(ids.shape), torch.cat(greedy).view(ids.shape)


def exact_streams(model: Decoder, ids: Tensor) -> Iterator[Tensor]:
    """The residual stream [1, L, d] after each layer, by the model's own forward: of any architecture."""
    yield from model(ids, torch.ones_like(ids), model.empty_cache(len(ids)), torch.tensor([1])).hidden[1:]


def fast_streams(model: Decoder, ids: Tensor) -> Iterator[Tensor]:
    """The same in bfloat16 products, for the architectures that healing trains too."""
    hidden = model.model.embed_tokens(ids).float()
    with torch.autocast(hidden.device.type, torch.bfloat16):
        for layer in layers_of(model):
            hidden = layer_output(model, layer, hidden)
            yield hidden


def _check_space(folder: Path, needed: int) -> None:
    import shutil

    place = folder
    while not place.exists():
        place = place.parent
    held = sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0
    free = shutil.disk_usage(place).free
    if needed - held > free:
        raise DoesNotFit(
            "the hidden states of the text must fit on the disk",
            f"they take {needed / 1e9:.1f} GB, {place} has {free / 1e9:.1f} GB free",
            "train on fewer --positions, or put the output on another disk",
        )
