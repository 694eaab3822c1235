"""MPNet (arXiv 2004.09297) as an encoder: a BERT with learned positions counted from the padding token's number, and
one bias per head and distance bucket (T5's, arXiv 1910.10683 §2.1) that all layers share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.contract import KIND_ENCODER
from edgekit.errors import ModelError
from edgekit.layers.config import ConfigFields
from edgekit.layers.encoder import Encoder, EncoderConfig, EncoderLayer, Layers, encoder_fields
from edgekit.layers.encoder_attention import attend, padding_bias

KIND = KIND_ENCODER

#: The padding token's number, and the last position number that no token has. The published implementation fixes it
#: (transformers, modeling_mpnet.py), whatever the configuration says.
PADDING = 1
#: Distances from here on share a bucket; fixed in the published implementation too.
MAX_DISTANCE = 128
BUCKETS = 32


@dataclass(frozen=True)
class Config(EncoderConfig):
    """Sizes and switches of an MPNet; `buckets` of distances to either side together."""

    buckets: int

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json."""
        fields = ConfigFields(d)
        buckets = fields.integer("relative_attention_num_buckets", BUCKETS)
        if buckets != BUCKETS:
            raise ModelError(
                f"relative_attention_num_buckets must be {BUCKETS}.",
                f"It is {buckets}.",
                "The published implementation computes no other.",
            )
        return cls(**encoder_fields(fields, eps=1e-12, pad=PADDING), buckets=buckets)


def distance_bucket(distance: int) -> int:
    """The bucket of (key position - query position): half for each side, half of each exact, the rest logarithmic."""
    side, far = BUCKETS // 2, abs(distance)
    first = side if distance > 0 else 0
    exact = side // 2
    if far < exact:
        return first + far
    # In float32, as published: where the logarithm is whole, the rounding decides.
    ratio = torch.log(torch.tensor(far, dtype=torch.float32) / exact) / math.log(MAX_DISTANCE / exact)
    return first + min(side - 1, exact + int((ratio * (side - exact)).item()))


class Embeddings(nn.Module):
    """LN(word + position)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """[B, S, hidden] for int64 [B, S]; there are no token types."""
        if token_type_ids is not None:
            raise ModelError("An MPNet takes no token types.", "Some were given.")
        real = (input_ids != PADDING).long()
        positions = real.cumsum(1) * real + PADDING
        output: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + self.position_embeddings(positions))
        return output


class SelfAttention(nn.Module):
    """The projections of query, key, value and output, and attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        size, self.heads = config.hidden_size, config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, hidden]; `bias` as in `attend`."""
        output: Tensor = self.o(attend(self.q(x), self.k(x), self.v(x), bias, self.heads))
        return output


class Attention(nn.Module):
    """LN(x + W_O attention(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attn = SelfAttention(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, hidden]; `bias` as in `attend`."""
        output: Tensor = self.LayerNorm(self.attn(x, bias) + x)
        return output


class BiasedLayers(Layers):
    """The blocks, and the bias of each bucket for each head."""

    def __init__(self, config: Config) -> None:
        super().__init__([EncoderLayer(config, Attention(config)) for _ in range(config.num_layers)])
        self.relative_attention_bias = nn.Embedding(config.buckets, config.num_heads)


class Model(Encoder):
    """An MPNet of this configuration, without a head."""

    encoder: BiasedLayers

    def __init__(self, config: Config) -> None:
        # Position numbers begin behind the padding's.
        super().__init__(config, config.max_position_embeddings - PADDING - 1, token_types=False)
        self.embeddings = Embeddings(config)
        self.encoder = BiasedLayers(config)
        # A table, and not the formula: in a graph, another logarithm could round to another bucket.
        self.register_buffer("distance_buckets", torch.empty(2 * self.max_positions - 1, dtype=torch.int64))

    def attention_bias(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, H, S, S]: the bias of each distance; padding is hidden."""
        order = torch.arange(x.shape[1], device=x.device)
        distance = order[None, :] - order[:, None]
        bucket = self.get_buffer("distance_buckets")[distance + (self.max_positions - 1)]
        relative = self.encoder.relative_attention_bias(bucket).permute(2, 0, 1)[None]
        return padding_bias(attention_mask, x.dtype, relative)

    def tables(self) -> dict[str, Tensor]:
        """distance_buckets: int64 [2 * max_positions - 1], from the farthest key before a query to that after it."""
        distances = range(1 - self.max_positions, self.max_positions)
        return {"distance_buckets": torch.tensor([distance_bucket(each) for each in distances])}
