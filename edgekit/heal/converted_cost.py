"""What healing a converted model will take, by the time of a step of each kind."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.checkpoint import Checkpoint
from edgekit.heal.distill import DistillOptions, divergence, passages, precision
from edgekit.heal.estimate import HealEstimate, memory_bytes, step_seconds, work_bytes
from edgekit.heal.full_attention import full_attention, layer_output, layers_of, tables_of
from edgekit.heal.options import HealOptions
from edgekit.heal.parameters import all_trained, trained_parameters
from edgekit.layers.decoder import Decoder


def expected(
    converted: Checkpoint,
    student: Decoder,
    teacher: Decoder,
    tokens: Tensor,
    options: HealOptions,
    layers_done: int,
    seconds_done: float,
) -> HealEstimate:
    """Of what is left, from the student as it is; nothing of it is changed.

    Args:
        tokens: int64 [n, length], of which layers are fitted.
    """
    left_s = max(0.0, 60 * options.minutes - seconds_done)
    fits = len(layers_of(student)) - layers_done if options.epochs else 0
    trained = all_trained(student, options.also)
    total = (_layer_seconds(student, teacher, tokens, options) * fits if fits else 0.0) + left_s
    steps = max(1, int(left_s / _step_seconds(student, teacher, tokens, options))) if left_s else 0
    for parameter in trained.values():
        parameter.grad = None
        parameter.requires_grad_(False)
    nbytes = sum(parameter.nbytes for parameter in trained.values())
    output = sum(path.stat().st_size for path in converted.file_paths())
    return HealEstimate(steps, total, memory_bytes(nbytes), work_bytes(nbytes, output))


def _step_seconds(student: Decoder, teacher: Decoder, tokens: Tensor, options: HealOptions) -> float:
    """Of distillation."""

    def step() -> None:
        with precision(options.compute):
            nats, hidden = divergence(student, teacher, passages(tokens, 0, options.batch))
        (nats + DistillOptions.hidden_weight * hidden).backward()  # type: ignore[no-untyped-call]

    return step_seconds(step)


def _layer_seconds(student: Decoder, teacher: Decoder, tokens: Tensor, options: HealOptions) -> float:
    """Of fitting one layer: its steps, and all passages through both models' layer."""
    layer, source = layers_of(student)[0], layers_of(teacher)[0]
    row = student.model.embed_tokens(tokens[:1]).detach()
    x, tables = layer.input_layernorm(row).detach(), tables_of(student, layer)

    def fit() -> None:
        full_attention(layer.self_attn, x, *tables).square().mean().backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward() -> None:
        layer_output(student, layer, row)
        layer_output(teacher, source, row)

    passes = len(tokens) * step_seconds(forward)
    if not trained_parameters(layer.self_attn, options.also):
        return passes
    return passes + max(1, round(options.epochs * len(tokens))) * step_seconds(fit)
