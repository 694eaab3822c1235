"""How far a model's outputs are from those of the model it was made from, for training: of decoders and encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.pooling_files import pooling_of
from edgekit.contract import KIND_ENCODER
from edgekit.heal.full_attention import head_of
from edgekit.heal.head_divergence import HeadDivergence
from edgekit.layers.decoder import Decoder
from edgekit.layers.encoder import Encoder
from edgekit.layers.pooling import pooled
from edgekit.models.registry import kind_of

#: (student, teacher, int64 [B, S]) -> what is to be small, and the mean relative error² of the hidden states.
Likeness = Callable[[Any, Any, Tensor], tuple[Tensor, Tensor]]


def likeness_of(checkpoint: Checkpoint) -> Likeness:
    """Decoders: KL(teacher || student) in nats per token. Encoders: the squared distance of embeddings, pooled as the
    checkpoint says."""
    if kind_of(checkpoint.config) != KIND_ENCODER:
        return next_tokens
    pooling = pooling_of(checkpoint.path)

    def embeddings(student: Encoder, teacher: Encoder, ids: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.ones_like(ids)
        with torch.no_grad():
            expected = teacher(ids, mask).hidden
        found = student(ids, mask).hidden
        wanted, own = (pooled(hidden[-1], mask, pooling.mode, True) for hidden in (expected, found))
        return (own - wanted).square().sum(-1).mean(), _error(found, expected)

    return embeddings


def next_tokens(student: Decoder, teacher: Decoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) in nats per token."""
    with torch.no_grad():
        expected = residual_streams(teacher, ids)
        wanted = teacher.model.norm(expected[-1])
    found = residual_streams(student, ids)
    own = student.model.norm(found[-1])
    if student.logit_softcap == 0:
        nats: Tensor = HeadDivergence.apply(  # type: ignore[no-untyped-call]
            own.flatten(0, 1), wanted.flatten(0, 1), head_of(student), head_of(teacher)
        )
    else:
        log_own, log_wanted = student.logits(own).log_softmax(-1), teacher.logits(wanted).log_softmax(-1)
        nats = functional.kl_div(
            log_own.flatten(0, 1), log_wanted.flatten(0, 1), reduction="batchmean", log_target=True
        )
    return nats, _error(found, expected)


def residual_streams(model: Decoder, ids: Tensor) -> list[Tensor]:
    """[B, S, hidden] before the first layer and after each, by the modules' own forward from an empty cache."""
    x, mask = model.embedded(ids), torch.ones_like(ids)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    found = [x]
    for layer in model.model.layers:
        block: Any = layer
        tables: Any = model.get_submodule(block.rope)
        past = tuple(x.new_empty(tensor.shape(len(ids), 0)) for tensor in block.self_attn.cache_tensors())
        x = block(x, past, mask, tables.cos, tables.sin)[0]
        found.append(x)
    return found


def _error(found: list[Tensor], expected: list[Tensor]) -> Tensor:
    """Mean over layers and tokens of the relative error², bounded: one token must not outweigh all others."""
    errors = []
    for own, wanted in zip(found[1:], expected[1:], strict=True):
        error = (own - wanted).square().mean(-1) / wanted.square().mean(-1).clamp(min=1e-12)
        errors.append((error / (1 + error)).mean())
    return torch.stack(errors).mean()
