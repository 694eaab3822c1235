"""Qwen2 and Qwen2.5: a Llama with biases on query, key and value, and optional sliding windows in its later layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.layers.config import ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder, pre_norm_layers


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes of a Qwen2; `windows` gives each layer's window, -1 for none."""

    windows: tuple[int, ...]

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json."""
        fields = ConfigFields(d)
        decoder = fields.decoder(tied=False)
        return cls(**decoder, windows=fields.qwen_windows(decoder["num_layers"]))


class Model(Decoder):
    """A Qwen2 of this configuration; `max_positions` as in `Decoder`."""

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        super().__init__(config, pre_norm_layers(config, windows=config.windows, qkv_bias=True), max_positions)
