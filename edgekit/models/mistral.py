"""Mistral: a Llama without biases whose layers may all see a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.layers.config import ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder, pre_norm_layers


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes of a Mistral; `window` is the number of tokens a query sees, -1 for all."""

    window: int

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json."""
        fields = ConfigFields(d)
        # The first Mistral's window of 4096 is the default of an absent field; null means no window.
        absent = -1 if "sliding_window" in d else 4096
        return cls(**fields.decoder(tied=False), window=fields.integer("sliding_window", absent))


class Model(Decoder):
    """A Mistral of this configuration; `max_positions` as in `Decoder`."""

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        windows = (config.window,) * config.num_layers
        super().__init__(config, pre_norm_layers(config, windows=windows), max_positions)
