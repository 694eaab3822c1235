"""Tensor product attention (arXiv 2501.06425): queries, keys and values as sums of outer products.

    Q_t = (1/R_Q) sum_r a_r(x_t) ⊗ b_r(x_t), a over the H heads, b over the D features; K with R_K, V with R_V alike.

RoPE turns the b rows of queries and keys only. The cache holds the factors, never the keys and values themselves.
All maps are linear without bias; the rows of an a map are rank-major (row r*H + h), those of a b map too (r*D + e).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.contract import KEY_A, KEY_B, VALUE_A, VALUE_B, CacheTensor, LayerCache
from edgekit.layers.norm import RMSNorm
from edgekit.layers.split import join_last, split_last
from edgekit.layers.static_b_attention import static_b_attention
from edgekit.ops.tpa_attention import tpa_attention

#: Which factors follow the token: both, only a (static b), or only b (static a) (section 3.4 of the paper).
CONTEXTUAL = ("both", "a", "b")


@dataclass(frozen=True)
class TPAShape:
    """Sizes and variant of one layer.

    query_rank: R_Q; 0 for dense queries q = W_Q x ("KV-only" of the paper). contextual: one of `CONTEXTUAL`.
    shared_kv_b: values use the (unrotated) b of the keys; needs equal ranks. head_norm_eps: with a number, each head's
    output is normalised (RMSNorm with one weight [D] for all heads) before the output projection.
    """

    hidden_size: int
    num_heads: int
    head_dim: int
    query_rank: int
    key_rank: int
    value_rank: int
    contextual: str = "both"
    shared_kv_b: bool = False
    head_norm_eps: float | None = None

    @property
    def scale(self) -> float:
        """Factor on the scores of the unscaled sums: 1 / (R_Q R_K sqrt(D)), R_Q = 1 for dense queries."""
        return float(1 / ((self.query_rank or 1) * self.key_rank * self.head_dim**0.5))


class TPAAttention(nn.Module):
    """Factor projections, `edgekit::TPAAttention` (or its form for static b), output projection."""

    def __init__(self, shape: TPAShape) -> None:
        super().__init__()
        self.shape = shape
        ranks = {"k": shape.key_rank, "v": shape.value_rank}
        if shape.query_rank:
            ranks = {"q": shape.query_rank, **ranks}
        else:
            self.q_proj = nn.Linear(shape.hidden_size, shape.num_heads * shape.head_dim, bias=False)
        for side, width in (("a", shape.num_heads), ("b", shape.head_dim)):
            for name, rank in ranks.items():
                if f"{name}_{side}" == "v_b" and shape.shared_kv_b:
                    continue
                if shape.contextual in ("both", side):
                    self.add_module(f"{name}_{side}_proj", nn.Linear(shape.hidden_size, rank * width, bias=False))
                else:
                    self.register_parameter(f"{name}_{side}", nn.Parameter(torch.ones(rank, width)))
        self.subln = None if shape.head_norm_eps is None else RMSNorm(shape.head_dim, shape.head_norm_eps)
        self.o_proj = nn.Linear(shape.num_heads * shape.head_dim, shape.hidden_size, bias=False)

    def cache_tensors(self) -> LayerCache:
        """What this layer keeps per earlier token: the factors that follow the token, those of keys rotated."""
        s = self.shape
        tensors = []
        if s.contextual != "b":
            tensors.append(CacheTensor(KEY_A, (s.key_rank, s.num_heads)))
        if s.contextual != "a":
            tensors.append(CacheTensor(KEY_B, (s.key_rank, s.head_dim)))
        if s.contextual != "b":
            tensors.append(CacheTensor(VALUE_A, (s.value_rank, s.num_heads)))
        if s.contextual != "a":
            tensors.append(CacheTensor(VALUE_B, (s.value_rank, s.head_dim)))
        return tuple(tensors)

    def factor(self, name: str, side: str, x: Tensor) -> Tensor:
        """One factor: [B, S, R, H or D] where it follows x [B, S, hidden], the static [R, H or D] otherwise."""
        shape = self.shape
        if (name, side) == ("v", "b") and shape.shared_kv_b:
            name = "k"
        rank = {"q": shape.query_rank, "k": shape.key_rank, "v": shape.value_rank}[name]
        if shape.contextual not in ("both", side):
            return self.get_parameter(f"{name}_{side}")
        width = shape.num_heads if side == "a" else shape.head_dim
        return split_last(self.get_submodule(f"{name}_{side}_proj")(x), rank, width)

    def query(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """(a, b) of the queries, or (None, their sum of outer products [B, S, H, D]) for dense or half static ones."""
        shape = self.shape
        if not shape.query_rank:
            return None, split_last(self.q_proj(x), shape.num_heads, shape.head_dim)
        a, b = self.factor("q", "a", x), self.factor("q", "b", x)
        if shape.contextual == "both":
            return a, b
        if shape.contextual == "a":
            return None, torch.matmul(a.transpose(-1, -2), b)
        return None, torch.matmul(a.T, b)

    def forward(
        self, x: Tensor, past: tuple[Tensor, ...], attention_mask: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output [B, S, hidden] and the present factors for x [B, S, hidden]; `past` as `cache_tensors` says."""
        shape = self.shape
        a_q, b_q = self.query(x)
        a_k, b_k = self.factor("k", "a", x), self.factor("k", "b", x)
        a_v = self.factor("v", "a", x)
        b_v = b_k if shape.shared_kv_b else self.factor("v", "b", x)
        value_scale = 1 / shape.value_rank
        present: tuple[Tensor, ...]
        if shape.contextual == "a":
            output, present = static_b_attention(
                b_q, a_k, b_k, a_v, b_v, past, attention_mask, cos, sin, scale=shape.scale, value_scale=value_scale
            )
        else:
            output, present = tpa_attention(
                a_q,
                b_q,
                a_k,
                b_k,
                a_v,
                b_v,
                past,
                attention_mask,
                cos,
                sin,
                _columns(shape.head_dim // 2),
                scale=shape.scale,
                value_scale=value_scale,
            )
        if self.subln is not None:
            output = self.subln(output)
        return self.o_proj(join_last(output)), present


def _columns(count: int) -> Tensor:
    """Plain RoPE's columns of the rotary tables, 0 .. count-1. Written out: a trace then holds a constant."""
    return torch.tensor(list(range(count)), dtype=torch.int64)
