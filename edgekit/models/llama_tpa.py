"""A Llama, Mistral or Qwen2 whose attention caches static factors: what `edgekit convert --attention tpa` writes.

config.json is the source's with `model_type` "llama_tpa", the source's own in `source_model_type`, the biases spelled
out and, per layer, `attention_factors`: {"key": {"structure": ...}, "value": {"structure": ...}}, see
`edgekit.layers.static_factors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.errors import ModelError
from edgekit.layers.attention import AttentionShape
from edgekit.layers.config import ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder, DecoderLayer
from edgekit.layers.latent_keys import LatentKeyAttention
from edgekit.layers.mlp import GatedMLP
from edgekit.layers.static_factors import LayerFactors, StaticFactorAttention

#: The cache is not plain keys and values: `edgekit inspect`, which reads this line, asks the model for its size.
CACHE_OF_FACTORS = True


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes, switches and each layer's factors."""

    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    factors: tuple[LayerFactors, ...]

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From config.json."""
        fields = ConfigFields(d)
        decoder = fields.decoder(tied=False)
        found, layers = d.get("attention_factors"), decoder["num_layers"]
        if not isinstance(found, list) or len(found) != layers:
            raise ModelError(
                f"attention_factors must have an entry for each of the {layers} layers.",
                f"It has {len(found) if isinstance(found, list) else 'none'}.",
                "Convert the checkpoint again: edgekit convert.",
            )
        return cls(
            **decoder,
            qkv_bias=fields.flag("qkv_bias", False),
            output_bias=fields.flag("output_bias", False),
            mlp_bias=fields.flag("mlp_bias", False),
            factors=tuple(LayerFactors.from_dict(entry, decoder["kv_heads"], decoder["head_dim"]) for entry in found),
        )


class Model(Decoder):
    """A model of this configuration; `max_positions` as in `Decoder`."""

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        c = config
        shape = AttentionShape(c.hidden_size, c.num_heads, c.kv_heads, c.head_dim, c.head_dim**-0.5)
        layers = []
        for factors in c.factors:
            kind = LatentKeyAttention if factors.key.structure == "latent" else StaticFactorAttention
            attention = kind(shape, factors, qkv_bias=c.qkv_bias, output_bias=c.output_bias)
            mlp = GatedMLP(c.hidden_size, c.intermediate_size, c.hidden_act, c.mlp_bias)
            layers.append(DecoderLayer(attention, mlp, c.hidden_size, c.rms_norm_eps))
        super().__init__(config, layers, max_positions)
