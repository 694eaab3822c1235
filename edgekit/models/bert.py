"""BERT (arXiv 1810.04805) as an encoder: learned absolute positions, token types, post-norm blocks. MiniLM is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.contract import KIND_ENCODER
from edgekit.errors import ModelError
from edgekit.layers.config import ConfigFields
from edgekit.layers.encoder import DenseNorm, Encoder, EncoderConfig, EncoderLayer, Layers, encoder_fields
from edgekit.layers.encoder_attention import attend, padding_bias

KIND = KIND_ENCODER


@dataclass(frozen=True)
class Config(EncoderConfig):
    """Sizes and switches of a BERT."""

    type_vocab_size: int

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json."""
        fields = ConfigFields(d)
        positions = fields.text("position_embedding_type", "absolute")
        if positions != "absolute":
            raise ModelError(
                "position_embedding_type must be absolute.", f"It is {positions!r}.", "This variant is not supported."
            )
        return cls(**encoder_fields(fields, eps=1e-12, pad=0), type_vocab_size=fields.integer("type_vocab_size", 2))


class Embeddings(nn.Module):
    """LN(word + position + token type)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """[B, S, hidden] for int64 [B, S]; token types None for zeros."""
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        positions = self.position_embeddings(torch.arange(input_ids.shape[1], device=input_ids.device))
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(types) + positions
        output: Tensor = self.LayerNorm(x)
        return output


class SelfAttention(nn.Module):
    """The projections of query, key and value, and attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        size, self.heads = config.hidden_size, config.num_heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, hidden]; `bias` as in `attend`."""
        return attend(self.query(x), self.key(x), self.value(x), bias, self.heads)


class Attention(nn.Module):
    """LN(x + W_O attention(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = DenseNorm(config.hidden_size, config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, hidden]; `bias` as in `attend`."""
        output: Tensor = self.output(self.self(x, bias), x)
        return output


class Model(Encoder):
    """A BERT of this configuration, without the head that predicts the next sentence."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.max_position_embeddings, token_types=True)
        self.embeddings = Embeddings(config)
        self.encoder = Layers([EncoderLayer(config, Attention(config)) for _ in range(config.num_layers)])

    def attention_bias(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, 1, S, S]: padding is hidden."""
        return padding_bias(attention_mask, x.dtype)
