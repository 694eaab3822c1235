"""Qwen3: a Llama that normalises each head's query and key, with optional sliding windows in its later layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.layers.config import ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder, pre_norm_layers


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes and switches of a Qwen3; `windows` gives each layer's window, -1 for none."""

    attention_bias: bool
    windows: tuple[int, ...]

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json."""
        fields = ConfigFields(d)
        decoder = fields.decoder(tied=False, head_dim=128)
        windows = fields.qwen_windows(decoder["num_layers"])
        return cls(**decoder, attention_bias=fields.flag("attention_bias", False), windows=windows)


class Model(Decoder):
    """A Qwen3 of this configuration; `max_positions` as in `Decoder`."""

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        layers = pre_norm_layers(
            config,
            windows=config.windows,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            qk_norm=True,
        )
        super().__init__(config, layers, max_positions)
