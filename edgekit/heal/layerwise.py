"""Layer by layer: fit each converted attention to what the source's attention puts out.

The source runs on its own residual stream, the converted model on its own, so each layer also learns to bear the errors
of those before it. One layer at a time is in training, with a small quadratic loss: this reaches most of what healing
can reach at a fraction of the price of training end to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.heal.full_attention import full_attention, layer_output, layers_of, tables_of
from edgekit.heal.parameters import groups, trained_parameters
from edgekit.layers.decoder import Decoder

WARMUP = 12


@dataclass(frozen=True)
class LayerwiseOptions:
    """epochs over the passages; rate: step of Adam relative to a parameter's root mean square; also: `KEPT`."""

    epochs: float = 2.0
    rate: float = 6e-3
    also: tuple[str, ...] = ()


def fit_layers(
    student: Decoder,
    teacher: Decoder,
    tokens: Tensor,
    options: LayerwiseOptions,
    *,
    done: int = 0,
    fitted: Callable[[int, float, float], None] = lambda layer, before, after: None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Fit the student's layers in place.

    Args:
        tokens: int64 [n, length].
        done: layers that were fitted before (their parameters are in the student).
        fitted: called after each layer with its index and its error² relative to the output's energy, before and after.
        advance: called with 1 after each layer, those done before included.
    """
    own = student.model.embed_tokens(tokens).detach()
    expected = own.clone()
    for index, (layer, source) in enumerate(zip(layers_of(student), layers_of(teacher), strict=True)):
        with torch.no_grad():
            x = [source.input_layernorm(row[None]) for row in expected]
            targets = torch.cat([full_attention(source.self_attn, row, *tables_of(teacher, source)) for row in x])
            inputs = layer.input_layernorm(own)
        parameters = trained_parameters(layer.self_attn, options.also)
        if index >= done and parameters:
            before, after = _fit(student, index, inputs, targets, options)
            fitted(index, before, after)
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        with torch.no_grad():
            for i in range(len(tokens)):
                own[i] = layer_output(student, layer, own[i : i + 1])[0]
                middle = expected[i] + targets[i]
                expected[i] = middle + source.mlp(source.post_attention_layernorm(middle))
        advance(1)


def _fit(
    student: Decoder, index: int, inputs: Tensor, targets: Tensor, options: LayerwiseOptions
) -> tuple[float, float]:
    layer = layers_of(student)[index]
    tables = tables_of(student, layer)
    parameters = trained_parameters(layer.self_attn, options.also)
    best = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    before = _error(student, index, inputs, targets)
    optimizer = torch.optim.Adam(groups(parameters, options.rate), betas=(0.9, 0.95), eps=1e-12)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = max(1, round(options.epochs * len(inputs)))
    energy = targets.square().mean()
    # The layer's own order, so that a resumed run goes on alike.
    draw = torch.Generator().manual_seed(index)
    order = torch.cat([torch.randperm(len(inputs), generator=draw) for _ in range(math.ceil(options.epochs))])[:steps]
    for step, chosen in enumerate(order.tolist()):
        schedule = min(1.0, (step + 1) / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule
        output = full_attention(layer.self_attn, inputs[chosen : chosen + 1], *tables)
        loss = (output - targets[chosen : chosen + 1]).square().mean() / energy
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), 10.0)
        optimizer.step()
    after = _error(student, index, inputs, targets)
    if not after < before:  # a step that went astray must not be kept
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(best[name])
        return before, before
    return before, after


@torch.no_grad()
def _error(student: Decoder, index: int, inputs: Tensor, targets: Tensor, most: int = 6) -> float:
    """Error² relative to the outputs' energy, on a few passages spread over all."""
    layer = layers_of(student)[index]
    tables = tables_of(student, layer)
    chosen = torch.linspace(0, len(inputs) - 1, min(most, len(inputs))).long()
    output = torch.cat([full_attention(layer.self_attn, inputs[i : i + 1], *tables) for i in chosen.tolist()])
    return float((output - targets[chosen]).square().sum() / targets[chosen].square().sum())
