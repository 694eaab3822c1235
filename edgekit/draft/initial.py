"""Where training starts: heads near what the model says, and a mixture that equals the single head it grows from."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from edgekit.draft.config import DraftConfig
from edgekit.draft.heads import DraftHeads
from edgekit.layers.norm import RMSNorm

_SPREAD = 0.02


@torch.no_grad()
def first_heads(config: DraftConfig, model_norm: torch.Tensor, seed: int) -> DraftHeads:
    """Fresh heads. The last layer's features pass through, and the last norm starts as the model's own."""
    generator = torch.Generator().manual_seed(seed)
    heads, d = DraftHeads(config), config.hidden_size

    def spread(parameter: torch.Tensor, fan_in: int, scale: float = 1.0) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * (scale / fan_in**0.5))

    for norm in heads.feature_norms:
        nn.init.ones_(cast(RMSNorm, norm).weight)
    nn.init.ones_(heads.trunk_norm.weight)
    heads.norm.weight.copy_(model_norm)
    spread(heads.project.weight, heads.project.in_features, 0.1)
    last = slice(config.features - d, config.features)
    heads.project.weight[:, last] += torch.eye(d)
    if heads.attention is not None and heads.attention_norm is not None:
        nn.init.ones_(heads.attention_norm.weight)
        for layer in (heads.attention.q_proj, heads.attention.k_proj, heads.attention.v_proj):
            spread(layer.weight, d)
        # Nothing is taken from earlier positions until that is learnt.
        nn.init.zeros_(heads.attention.o_proj.weight)
        nn.init.zeros_(heads.attention.distance)
    for layer in (heads.trunk.gate_proj, heads.trunk.up_proj):
        spread(layer.weight, d)
    spread(heads.trunk.down_proj.weight, config.trunk_width, 0.1)
    spread(heads.mixture.weight, d, _SPREAD)
    spread(heads.down, d)
    nn.init.zeros_(heads.up)
    spread(heads.component_down, d)
    nn.init.zeros_(heads.component_up)
    return heads


@torch.no_grad()
def grown(heads: DraftHeads, config: DraftConfig, model_norm: torch.Tensor, seed: int) -> DraftHeads:
    """Heads of `config` whose joint equals that of `heads`: each component says the same until it is trained.

    What each component adds to a position starts at zero, behind inner weights that differ, so that their gradients do.
    """
    result = first_heads(config, model_norm, seed)
    own = result.state_dict()
    for name, value in heads.state_dict().items():
        if not name.startswith(("component_", "mixture")):
            own[name].copy_(value)
    return result
