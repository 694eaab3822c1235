"""The decoder that all architectures share: embedding, blocks, norm, head.

Parameter names are those of Hugging Face checkpoints (model.embed_tokens.weight, model.layers.0...., model.norm.weight,
lm_head.weight). The rotary tables are the buffers rope.cos and rope.sin (and rope_local.* where there are two bases).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.contract import LayerCache
from edgekit.errors import ModelError
from edgekit.layers.attention import Attention, AttentionShape
from edgekit.layers.config import DecoderConfig
from edgekit.layers.mlp import GatedMLP
from edgekit.layers.norm import RMSNorm
from edgekit.layers.rotary import RotaryTables

#: Positions for which tables are made unless the caller asks otherwise; a longer table costs D * 4 bytes a position.
DEFAULT_POSITION_LIMIT = 8192


class Output(NamedTuple):
    """What a decoder returns.

    logits: [B, K, V] for the K kept positions.
    present: per layer the tensors of its cache, for T tokens (keys and values [B, G, T, D] of most models).
    hidden: the residual stream [B, S, hidden] after the embedding and after each layer (L + 1 tensors).
    """

    logits: Tensor
    present: list[tuple[Tensor, ...]]
    hidden: list[Tensor]


class DecoderLayer(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)).

    `attention` has `forward(x, past, attention_mask, cos, sin) -> (output, present)` and `cache_tensors()`.
    """

    def __init__(self, attention: nn.Module, mlp: GatedMLP, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = RMSNorm(hidden_size, eps)
        self.post_attention_layernorm = RMSNorm(hidden_size, eps)
        self.rope = "rope"

    def forward(
        self, x: Tensor, past: tuple[Tensor, ...], attention_mask: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        attended, present = self.self_attn(self.input_layernorm(x), past, attention_mask, cos, sin)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), present


def pre_norm_layers(
    config: DecoderConfig,
    *,
    windows: Sequence[int] | None = None,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
) -> list[DecoderLayer]:
    """The layers of a Llama-like decoder; `windows` gives each layer's window, -1 (the default) for none."""
    c = config
    layers = []
    for window in windows or (-1,) * c.num_layers:
        shape = AttentionShape(c.hidden_size, c.num_heads, c.kv_heads, c.head_dim, c.head_dim**-0.5, window)
        attention = Attention(
            shape, qkv_bias=qkv_bias, output_bias=output_bias, qk_norm_eps=c.rms_norm_eps if qk_norm else None
        )
        mlp = GatedMLP(c.hidden_size, c.intermediate_size, c.hidden_act, mlp_bias)
        layers.append(DecoderLayer(attention, mlp, c.hidden_size, c.rms_norm_eps))
    return layers


class Body(nn.Module):
    """What Hugging Face calls `model`: everything but the head."""

    def __init__(self, vocab_size: int, hidden_size: int, eps: float, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(hidden_size, eps)


class Decoder(nn.Module):
    """A causal language model over given layers.

    Args:
        config: sizes, and the rotary tables by name.
        layers: modules with the signature of `DecoderLayer`, each naming its rotary tables in `.rope`.
        max_positions: rows of the tables; None for the model's own limit, at most `DEFAULT_POSITION_LIMIT`.
        embedding_scale: factor on the embedding.
        logit_softcap: c in c * tanh(logits / c), 0 for none.
    """

    #: Weight transforms by the end of the parameter's name, see `edgekit.models.registry`.
    weight_transforms: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        config: DecoderConfig,
        layers: Sequence[nn.Module],
        max_positions: int | None = None,
        *,
        embedding_scale: float = 1.0,
        logit_softcap: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = Body(config.vocab_size, config.hidden_size, config.rms_norm_eps, layers)
        self.lm_head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.max_positions = max_positions or min(config.max_position_embeddings, DEFAULT_POSITION_LIMIT)
        self.ropes = list(config.rotary)
        for name, rotary in config.rotary.items():
            self.add_module(name, RotaryTables(rotary, config.head_dim, self.max_positions))
        self.embedding_scale, self.logit_softcap = embedding_scale, logit_softcap

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past: list[tuple[Tensor, ...]],
        logits_to_keep: Tensor,
    ) -> Output:
        """Logits of the last `logits_to_keep` tokens, the grown cache and the hidden states.

        Args:
            input_ids: int64 [B, S].
            attention_mask: int64 [B, T], T = P + S, zeros for padding (at the left).
            past: per layer the tensors of `cache_layout` for P tokens; P may be 0.
            logits_to_keep: int64 [1]; 0 for all.

        Raises:
            ModelError: more real tokens in a row than the rotary tables have positions (not checked in a trace).
        """
        if not torch.onnx.is_in_onnx_export():
            self._check_length(attention_mask)
        x = self.embedded(input_ids)
        hidden, present = [x], []
        for layer, layer_past in zip(self.model.layers, past, strict=True):
            tables = self.get_submodule(str(layer.rope))
            x, layer_present = layer(x, layer_past, attention_mask, tables.cos, tables.sin)
            present.append(layer_present)
            hidden.append(x)
        return Output(self.logits(keep_last(self.model.norm(x), logits_to_keep)), present, hidden)

    def embedded(self, input_ids: Tensor) -> Tensor:
        """The residual stream before the first layer, [B, S, hidden] for int64 [B, S]."""
        x: Tensor = self.model.embed_tokens(input_ids)
        return x * _rounded(self.embedding_scale, x.dtype) if self.embedding_scale != 1.0 else x

    def logits(self, x: Tensor) -> Tensor:
        """[B, S, V] for the normalised residual stream [B, S, hidden]."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        logits = functional.linear(x, head.weight)
        return self.logit_softcap * torch.tanh(logits / self.logit_softcap) if self.logit_softcap > 0 else logits

    def _check_length(self, attention_mask: Tensor) -> None:
        longest = int((attention_mask != 0).sum(1).max())
        if longest > self.max_positions:
            raise ModelError(
                f"A sequence may have at most {self.max_positions} tokens.",
                f"This one has {longest}.",
                "Shorten it, or build the model with more max_positions.",
            )

    def cache_layout(self) -> list[LayerCache]:
        """Per layer the tensors of its cache, in the order of `past`."""
        return [layer.self_attn.cache_tensors() for layer in self.model.layers]  # type: ignore[union-attr,operator]

    def empty_cache(self, batch: int) -> list[tuple[Tensor, ...]]:
        """The cache of no tokens, in the dtype and on the device of the weights."""
        like = self.model.embed_tokens.weight
        return [tuple(like.new_empty(tensor.shape(batch, 0)) for tensor in cache) for cache in self.cache_layout()]

    def rope_tables(self) -> dict[str, Tensor]:
        """Values of the rotary buffers by buffer name: float32 [max_positions, D/2] on the CPU."""
        tables: dict[str, Tensor] = {}
        for name in self.ropes:
            module = self.get_submodule(name)
            assert isinstance(module, RotaryTables)
            tables[f"{name}.cos"], tables[f"{name}.sin"] = module.compute()
        return tables


def _rounded(number: float, dtype: torch.dtype) -> float:
    """The number as the 16-bit storage types hold it: Gemma was trained with an embedding scale rounded to bfloat16."""
    if dtype in (torch.float32, torch.float64):
        return number
    return torch.tensor(number, dtype=dtype).item()


def keep_last(x: Tensor, count: Tensor) -> Tensor:
    """The last `count` (int64 [1], 0 for all) positions of x [B, S, hidden].

    A trace holds one Slice from -count: for a count of 0 it starts at 0, which is all.
    """
    if torch.onnx.is_in_onnx_export():
        kept = torch.sym_min(count.item(), x.shape[1])  # type: ignore[no-untyped-call]
        ends = torch.tensor([sys.maxsize], dtype=torch.int64)
        axes = torch.tensor([1], dtype=torch.int64)
        inputs = (x, -count, ends, axes)
        sliced: Tensor = torch.onnx.ops.symbolic("Slice", inputs, dtype=x.dtype, shape=(x.shape[0], kept, x.shape[2]))
        return sliced
    return x[:, -int(count) :]
