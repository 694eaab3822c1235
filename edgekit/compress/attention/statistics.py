"""What a conversion must know of each layer's attention, measured on calibration text.

Letters: H heads, G key/value heads, D head size, N = G * D features of all keys (or values) of a token.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.compress.attention.source import SourceShape, prefix
from edgekit.compress.calibration import measure
from edgekit.files import atomic_write
from edgekit.layers.decoder import Decoder
from edgekit.ops.causal_attention import rotate
from edgekit.progress import Progress


@dataclass(frozen=True)
class LayerStatistics:
    """Means over tokens, float64.

    Attributes:
        key: E[k kᵀ] of the keys before RoPE, [N, N].
        key_mean: E[k], [N].
        attended: per head E[v̄ v̄ᵀ] of what the head's attention makes of the values of *all* groups, v̄ = Σ_m p_m v_m,
            [H, N, N]: an error in a direction that averaging cancels costs nothing.
        query_energy: E|q|² of each rotary pair, summed over the heads of a group, [G, D/2].
        key_gradient: E[(∂loss/∂k)²] before RoPE, [N].
        output_gradient: E[(∂loss/∂y)²] at the output of the layer's attention, [hidden].
    """

    key: Tensor
    key_mean: Tensor
    attended: Tensor
    query_energy: Tensor
    key_gradient: Tensor
    output_gradient: Tensor

    @property
    def key_weight(self) -> Tensor:
        """What an error² of each feature of the keys costs, [N], twice nats: within the layer by the energy of the
        queries that meet it, which is steadier than a gradient of few tokens; as a whole by the gradient."""
        energy = torch.cat((self.query_energy, self.query_energy), 1).flatten()
        mean = energy.mean()
        scaled: Tensor = energy * (self.key_gradient.mean() / mean) if mean > 0 else torch.ones_like(energy)
        return scaled


def measure_attention(model: Decoder, shape: SourceShape, tokens: Tensor, progress: Progress) -> list[LayerStatistics]:
    """Run the source model over token ids [n, length], one sequence at a time: once forwards, and every other sequence
    once with gradients, in halves."""
    progress.stage("measure attention", len(tokens), "sequences")
    sums: list[dict[str, Tensor]] = [{} for _ in range(shape.layers)]
    handles = []
    for layer, module in enumerate(model.model.layers):
        attention: Any = module.self_attn
        handles.append(attention.register_forward_pre_hook(_gatherer(sums[layer], shape)))
    try:
        for row in tokens:
            with torch.no_grad():
                model(row[None], torch.ones_like(row[None]), model.empty_cache(1), torch.tensor([1]))
            progress.advance()
    finally:
        for handle in handles:
            handle.remove()
    half = tokens.shape[1] // 2
    pieces = tokens[::2, : 2 * half].reshape(-1, half)
    progress.stage("measure gradients", len(pieces), "sequences")
    gradients = measure(model, pieces, set(), gradients=True, advance=progress.advance).gradients
    count = tokens.numel()
    return [
        LayerStatistics(
            **{name: value.double() / count for name, value in sums[layer].items()},
            key_gradient=gradients[f"{prefix(layer)}k_proj.weight"].double(),
            output_gradient=gradients[f"{prefix(layer)}o_proj.weight"].double(),
        )
        for layer in range(shape.layers)
    ]


def _gatherer(into: dict[str, Tensor], shape: SourceShape) -> Any:
    groups = torch.tensor([shape.group(head) for head in range(shape.heads)])

    def add(name: str, value: Tensor) -> None:
        into[name] = into[name] + value if name in into else value

    def hook(module: Any, inputs: tuple[Any, ...]) -> None:
        x, _, _, cos, sin = inputs
        query, key, value = module.q_proj(x), module.k_proj(x)[0], module.v_proj(x)[0]
        add("key", key.T @ key)
        add("key_mean", key.sum(0))
        new, size = len(key), shape.head_dim
        pairs = query[0].view(new, shape.heads, 2, size // 2).square().sum((0, 2))
        add("query_energy", pairs.view(shape.groups, shape.share, size // 2).sum(1))
        tables = cos[:new].to(key.dtype)[None], sin[:new].to(key.dtype)[None]
        turned_query = rotate(query.view(1, new, shape.heads, size), *tables)[0]
        turned_key = rotate(key.view(1, new, shape.groups, size), *tables)[0][:, groups]
        scores = torch.einsum("nhd,mhd->hnm", turned_query, turned_key) * module.shape.scale
        later = torch.ones(new, new, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(later, -torch.inf).softmax(-1) @ value  # [H, S, N]
        add("attended", attended.transpose(1, 2) @ attended)

    return hook


def save_statistics(path: Path, statistics: list[LayerStatistics]) -> None:
    """As safetensors, float32."""
    from safetensors.torch import save

    tensors = {
        f"{layer}.{field.name}": getattr(found, field.name).float().contiguous()
        for layer, found in enumerate(statistics)
        for field in fields(LayerStatistics)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, save(tensors))


def load_statistics(path: Path) -> list[LayerStatistics]:
    """What `save_statistics` wrote."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    layers = 1 + max(int(name.split(".")[0]) for name in tensors)
    return [
        LayerStatistics(**{f.name: tensors[f"{layer}.{f.name}"].double() for f in fields(LayerStatistics)})
        for layer in range(layers)
    ]
