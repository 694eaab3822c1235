"""Llama (SmolLM2, Llama 2 and 3): pre-norm blocks, grouped-query attention, gated SiLU, RoPE with Llama 3's scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.layers.config import ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder, pre_norm_layers


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes and switches of a Llama."""

    attention_bias: bool
    mlp_bias: bool

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json."""
        fields = ConfigFields(d)
        return cls(
            **fields.decoder(tied=False),
            attention_bias=fields.flag("attention_bias", False),
            mlp_bias=fields.flag("mlp_bias", False),
        )


class Model(Decoder):
    """A Llama of this configuration; `max_positions` as in `Decoder`."""

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        layers = pre_norm_layers(
            config, qkv_bias=config.attention_bias, output_bias=config.attention_bias, mlp_bias=config.mlp_bias
        )
        super().__init__(config, layers, max_positions)
