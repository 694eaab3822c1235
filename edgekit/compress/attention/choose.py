"""Choosing between structures: divergence from the source on text that the statistics have not seen, and read cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.checkpoint import Checkpoint
from edgekit.compress.attention.source import prefix
from edgekit.compress.attention.write import layer_of, replaced
from edgekit.layers.decoder import Decoder
from edgekit.models._weights import tensor_from_array
from edgekit.models.registry import model_from_checkpoint, model_from_config

#: Keys that are rebuilt at every read must lower the divergence to this share of what keys that are not rebuilt reach.
REBUILDING_IS_WORTH = 0.5


@dataclass
class Candidate:
    """A converted model, not yet written.

    Attributes:
        name: the keys' structure.
        config: its config.json.
        layers: per layer its tensors by name within self_attn.
        record: per layer what was kept and what leaving out the rest is expected to cost.
        expected_loss: nats per token, by the statistics.
    """

    name: str
    config: dict[str, Any]
    layers: Mapping[int, Mapping[str, Tensor]]
    record: list[dict[str, Any]]
    expected_loss: float


def with_read_price(divergence: float, candidate: Candidate) -> float:
    """The divergence, made worse where keys must be rebuilt when they are read; the lowest is chosen."""
    factors = candidate.config["attention_factors"]
    rebuilt: float = sum(entry["key"]["structure"] == "latent" for entry in factors) / len(factors)
    return divergence * (1 + rebuilt * (1 / REBUILDING_IS_WORTH - 1))


def model_of(checkpoint: Checkpoint, candidate: Candidate, max_positions: int | None = None) -> Decoder:
    """The converted model in float32."""
    model = model_from_config(candidate.config, max_positions)
    state = {prefix(i) + name: value.float() for i, found in candidate.layers.items() for name, value in found.items()}
    for name in checkpoint.names():
        layer = layer_of(name)
        if layer is None or name.removeprefix(prefix(layer)) not in replaced(candidate.layers[layer]):
            state[name] = tensor_from_array(checkpoint.array(name), torch.float32)
    model.load_state_dict({name: state[name] for name, _ in model.named_parameters()})
    return model


@torch.no_grad()
def measured_divergence(
    checkpoint: Checkpoint,
    candidates: list[Candidate],
    tokens: Tensor,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Per candidate the mean KL divergence of its next-token distribution from the source's, nats per token."""
    source = model_from_checkpoint(checkpoint, max_positions=tokens.shape[1])
    expected = [_log_probabilities(source, row) for row in tokens]
    del source
    advance()
    found = {}
    for candidate in candidates:
        model = model_of(checkpoint, candidate, tokens.shape[1])
        parts = [
            functional.kl_div(_log_probabilities(model, row), target, reduction="batchmean", log_target=True)
            for row, target in zip(tokens, expected, strict=True)
        ]
        found[candidate.name] = float(torch.stack(parts).mean())
        advance()
    return found


def _log_probabilities(model: Decoder, row: Tensor) -> Tensor:
    logits = model(row[None], torch.ones_like(row[None]), model.empty_cache(1), torch.tensor([0])).logits
    found: Tensor = logits[0].log_softmax(-1)
    return found
