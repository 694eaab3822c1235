"""Gemma 3, text only: norms on both sides of each sublayer, local layers with a window and a RoPE base of their own.

Checkpoints store a norm's weight minus one; loading adds it, so the modules hold what they multiply by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.layers.attention import Attention, AttentionShape
from edgekit.layers.config import SLIDING_ATTENTION, ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder
from edgekit.layers.mlp import GatedMLP
from edgekit.layers.norm import RMSNorm

#: Names of the rotary tables of global and local layers.
GLOBAL_ROPE, LOCAL_ROPE = "rope", "rope_local"


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes and switches of a Gemma 3.

    windows: per layer the window of a local layer, -1 for a global one. score_scale: factor on the attention
    scores. logit_softcap: 0 for none.
    """

    attention_bias: bool
    windows: tuple[int, ...]
    score_scale: float
    logit_softcap: float

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a Hugging Face config.json; ModelError for capped attention scores and bidirectional attention."""
        fields = ConfigFields(d)
        for name in ("attn_logit_softcapping", "use_bidirectional_attention"):
            if d.get(name):
                raise ModelError(
                    f"A gemma3_text model must not use {name}.",
                    f"The configuration says {name} = {d[name]!r}.",
                    "No released Gemma 3 uses it, and it is not supported.",
                )
        rotary = {
            GLOBAL_ROPE: fields.rotary(1_000_000.0),
            LOCAL_ROPE: fields.rotary(10_000.0, SLIDING_ATTENTION, "rope_local_base_freq"),
        }
        decoder = fields.decoder(
            tied=True, act_field="hidden_activation", act="gelu_pytorch_tanh", head_dim=256, rotary=rotary
        )
        pattern = fields.integer("sliding_window_pattern", 6)
        count = decoder["num_layers"]
        window = fields.integer("sliding_window", 4096)
        types = fields.layer_types(count, [bool((i + 1) % pattern) for i in range(count)])
        return cls(
            **decoder,
            attention_bias=fields.flag("attention_bias", False),
            windows=tuple(window if sliding else -1 for sliding in types),
            score_scale=fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
            logit_softcap=fields.number("final_logit_softcapping", 0.0),
        )


class Layer(nn.Module):
    """x += norm(attention(norm(x))); x += norm(mlp(norm(x)))."""

    def __init__(self, config: Config, window: int) -> None:
        super().__init__()
        c = config
        shape = AttentionShape(c.hidden_size, c.num_heads, c.kv_heads, c.head_dim, c.score_scale, window)
        self.self_attn = Attention(
            shape, qkv_bias=c.attention_bias, output_bias=c.attention_bias, qk_norm_eps=c.rms_norm_eps
        )
        self.mlp = GatedMLP(c.hidden_size, c.intermediate_size, c.hidden_act)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.pre_feedforward_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.rope = LOCAL_ROPE if window > 0 else GLOBAL_ROPE

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], attention_mask: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        attended, present = self.self_attn(self.input_layernorm(x), past, attention_mask, cos, sin)
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x))), present


class Model(Decoder):
    """A Gemma 3 of this configuration; `max_positions` as in `Decoder`."""

    weight_transforms: ClassVar[dict[str, str]] = {"norm.weight": "plus_one"}

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        super().__init__(
            config,
            [Layer(config, window) for window in config.windows],
            max_positions,
            embedding_scale=config.hidden_size**0.5,
            logit_softcap=config.logit_softcap,
        )
