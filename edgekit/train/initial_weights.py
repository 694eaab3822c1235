"""Weights before the first step."""

from __future__ import annotations

import torch

from edgekit.layers.decoder import Decoder

_SPREAD = 0.02


def initialise(model: Decoder, seed: int) -> None:
    """Draw every weight from the seed.

    All are normal with deviation 0.02, those that write to the residual stream smaller by sqrt(2 L) (GPT-2), factors as
    well: larger ones (Xavier) learn slower in short runs, since Adam's steps are then small beside the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    depth = 2 * len(model.model.layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            owner = name.split(".")[-2]
            if name.endswith("norm.weight") or owner == "subln":
                parameter.fill_(1)
            elif owner in ("o_proj", "down_proj"):
                parameter.normal_(0, _SPREAD / depth**0.5, generator=generator)
            elif owner == "self_attn":  # a static factor: rows of size 1 per feature
                parameter.normal_(0, 1, generator=generator)
            else:
                parameter.normal_(0, _SPREAD, generator=generator)
