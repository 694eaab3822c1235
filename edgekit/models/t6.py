"""T6, the tensor product attention transformer (arXiv 2501.06425): pre-norm blocks, factorised attention, gated SiLU.

Differences from a Llama, each a field of the configuration: norms may have no weight, RoPE turns the other way, and its
cosines and sines are rounded to bfloat16, as in the published training code. `parameter_count` gives the sizes of the
paper's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import ModelError
from edgekit.layers.config import ConfigFields, DecoderConfig
from edgekit.layers.decoder import Decoder, DecoderLayer
from edgekit.layers.mlp import GatedMLP
from edgekit.layers.rotary import Rotary, RotaryTables
from edgekit.layers.tpa import CONTEXTUAL, TPAAttention, TPAShape

#: The cache is not plain keys and values: `edgekit inspect`, which reads this line, asks the model for its size.
CACHE_OF_FACTORS = True


@dataclass(frozen=True)
class Config(DecoderConfig):
    """Sizes and variant of a T6.

    query_rank: R_Q, 0 for dense queries. contextual: which factors follow the token, one of `CONTEXTUAL`.
    norm_weights: whether the RMS norms have weights. rope_sign: -1 for T6's own direction, (x1, x2) -> (x1 c + x2 s,
    x2 c - x1 s), 1 for Llama's. rope_table_dtype: "bfloat16" for tables rounded as in training, or "float32".
    head_norm_eps: None for no normalisation of the heads' outputs.
    """

    query_rank: int
    key_rank: int
    value_rank: int
    contextual: str
    shared_kv_b: bool
    norm_weights: bool
    rope_sign: int
    rope_table_dtype: str
    head_norm_eps: float | None

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Config:
        """From a config.json; ModelError names the field that is missing or has a value of no variant."""
        fields = ConfigFields(d)
        # No defaults: training used the dtype's own epsilon, and neither size follows from others.
        for name in ("rms_norm_eps", "head_dim", "intermediate_size"):
            _require(d.get(name) is not None, name, "is required", "It is missing.")
        decoder = fields.decoder(tied=True)
        heads = decoder["num_heads"]
        _require(
            decoder["kv_heads"] == heads,
            "num_key_value_heads",
            "has no meaning in a t6",
            f"It is {decoder['kv_heads']}.",
        )
        query = _choice(d, "query", ("factored", "dense"), "factored")
        contextual = _choice(d, "contextual", CONTEXTUAL, "both")
        key_rank, value_rank = fields.integer("key_rank"), fields.integer("value_rank")
        shared = fields.flag("shared_kv_b", False)
        _require(
            not shared or key_rank == value_rank,
            "shared_kv_b",
            "needs key_rank = value_rank",
            f"They are {key_rank} and {value_rank}.",
        )
        eps = decoder["rms_norm_eps"]
        _require(eps > 0, "rms_norm_eps", "must be above 0", f"It is {eps}.")
        head_norm_eps = fields.number("head_norm_eps", 1e-5)
        return cls(
            **decoder,
            query_rank=fields.integer("query_rank") if query == "factored" else 0,
            key_rank=key_rank,
            value_rank=value_rank,
            contextual=contextual,
            shared_kv_b=shared,
            norm_weights=fields.flag("norm_weights", False),
            rope_sign=int(_choice(d, "rope_sign", (-1, 1), -1)),
            rope_table_dtype=_choice(d, "rope_table_dtype", ("float32", "bfloat16"), "bfloat16"),
            head_norm_eps=head_norm_eps if fields.flag("head_norm", False) else None,
        )


def _require(condition: bool, name: str, rule: str, fact: str) -> None:
    if not condition:
        raise ModelError(f"{name} {rule}.", fact, "Correct the checkpoint's config.json.")


def _choice(d: dict[str, Any], name: str, allowed: tuple[Any, ...], default: Any) -> Any:
    value = default if d.get(name) is None else d[name]
    known = [choice for choice in allowed if type(choice) is type(value) and choice == value]
    _require(bool(known), name, f"must be one of {', '.join(map(str, allowed))}", f"It is {value!r}.")
    return value


class OnesRMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps): RMSNorm without a weight. The ones are a table, so that a graph has the usual node."""

    weight: Tensor

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(size), persistent=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class T6RotaryTables(RotaryTables):
    """Tables of the configured direction and rounding; the opposite direction is a negated table of sines."""

    def __init__(self, rotary: Rotary, head_dim: int, max_positions: int, sign: int, dtype: str) -> None:
        self.sign, self.dtype = sign, dtype
        super().__init__(rotary, head_dim, max_positions)

    def compute(self) -> tuple[Tensor, Tensor]:
        cos, sin = super().compute()
        if self.dtype == "bfloat16":
            if self.rotary.scaling is None:
                cos, sin = self._as_trained()
            cos, sin = cos.bfloat16().float(), sin.bfloat16().float()
        return cos, sin * self.sign

    def _as_trained(self) -> tuple[Tensor, Tensor]:
        # Angles in float32, as training computed them: an exact angle would round to another bfloat16 now and then.
        exponents = torch.arange(0, self.head_dim, 2, device="cpu").float() / self.head_dim
        frequencies = 1.0 / (self.rotary.theta**exponents)
        angles = torch.outer(torch.arange(self.max_positions, device="cpu").float(), frequencies)
        return angles.cos(), angles.sin()


class Model(Decoder):
    """A T6 of this configuration; `max_positions` as in `Decoder`."""

    def __init__(self, config: Config, max_positions: int | None = None) -> None:
        super().__init__(config, [_layer(config) for _ in range(config.num_layers)], max_positions)
        (rotary,) = config.rotary.values()
        tables = T6RotaryTables(rotary, config.head_dim, self.max_positions, config.rope_sign, config.rope_table_dtype)
        self.add_module("rope", tables)
        if not config.norm_weights:
            self.model.add_module("norm", OnesRMSNorm(config.hidden_size, config.rms_norm_eps))

    def rope_tables(self) -> dict[str, Tensor]:
        """The rotary tables, and the ones of norms without weights: every buffer by its name."""
        ones = {
            f"{name}.weight": torch.ones(module.weight.shape, dtype=torch.float32, device="cpu")
            for name, module in self.named_modules()
            if isinstance(module, OnesRMSNorm)
        }
        return super().rope_tables() | ones


def _layer(config: Config) -> DecoderLayer:
    c = config
    shape = TPAShape(
        c.hidden_size,
        c.num_heads,
        c.head_dim,
        c.query_rank,
        c.key_rank,
        c.value_rank,
        c.contextual,
        c.shared_kv_b,
        c.head_norm_eps,
    )
    mlp = GatedMLP(c.hidden_size, c.intermediate_size, c.hidden_act)
    layer = DecoderLayer(TPAAttention(shape), mlp, c.hidden_size, c.rms_norm_eps)
    if not c.norm_weights:
        layer.add_module("input_layernorm", OnesRMSNorm(c.hidden_size, c.rms_norm_eps))
        layer.add_module("post_attention_layernorm", OnesRMSNorm(c.hidden_size, c.rms_norm_eps))
    return layer


def parameter_count(config: Config) -> int:
    """Trained numbers of a T6 of this configuration, a tied embedding counted once.

    per layer d (R_Q + R_K + R_V)(h + dh) + d h dh + 3 d f, and V d for the embedding (all factors contextual).
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Model(config, 1).parameters())
