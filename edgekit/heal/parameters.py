"""Which parameters healing trains: what the conversion made, and on request the projections it kept."""

from __future__ import annotations

from torch import nn

from edgekit.heal.full_attention import layers_of
from edgekit.layers.decoder import Decoder

#: Projections that come from the source unchanged.
KEPT = ("q_proj", "o_proj")
#: Their steps relative to those of what the conversion made.
KEPT_RATE = 0.2


def trained_parameters(attention: nn.Module, also: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """The parameters of one converted attention module by name, made trainable.

    Args:
        also: projections of `KEPT` to train too; their stored integers cannot be carried over afterwards.
    """
    found = {}
    for name, parameter in attention.named_parameters():
        kept = name.split(".")[0] in KEPT and name.split(".")[0] not in also
        exact = name.startswith("a_") and bool(((parameter == 0) | (parameter == 1)).all())
        if not kept and not exact:
            parameter.requires_grad_(True)
            found[name] = parameter
    return found


def all_trained(model: Decoder, also: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """Those of all layers, by the names of the state dict."""
    return {
        f"model.layers.{index}.self_attn.{name}": parameter
        for index, layer in enumerate(layers_of(model))
        for name, parameter in trained_parameters(layer.self_attn, also).items()
    }


def groups(parameters: dict[str, nn.Parameter], rate: float) -> list[dict[str, object]]:
    """Optimiser groups, one per parameter: the rate is relative to its root mean square, so that the scale of a latent,
    which is free, does not matter. Projections that are kept take smaller steps: they were trained already."""
    return [
        {
            "params": [parameter],
            "lr": rate
            * (KEPT_RATE if any(part in KEPT for part in name.split(".")) else 1.0)
            * max(float(parameter.detach().square().mean().sqrt()), 1e-4),
        }
        for name, parameter in parameters.items()
    ]
