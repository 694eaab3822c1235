"""Attention whose cache holds mixed keys and values: tensor product attention with static head factors, dense queries.

K_h,m = sum_s a_k[s,h] rot_m(b_k[m,s]) and V_h,m = sum_u a_v[u,h] b_v[m,u] (arXiv 2501.06425, section 3.4,
"non-contextual A"), with b = W x cached. Grouped-query attention is the case of one row per group and a of zeros and
ones; fewer or narrower rows make a smaller cache. `edgekit.compress.attention` makes such layers.

Letters as in `edgekit.ops.tpa_attention`; N rotary pairs of a spectral key row, G key/value heads of the model that the
layer was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.contract import KEY_B, VALUE_B, CacheTensor, LayerCache
from edgekit.errors import ModelError
from edgekit.layers.attention import AttentionShape
from edgekit.layers.split import join_last, split_last
from edgekit.ops.tpa_attention import tpa_attention

#: Structures of keys and of values, as config.json names them.
KEY_STRUCTURES = ("exact", "head", "spectral", "latent")
VALUE_STRUCTURES = ("exact", "head", "latent")


@dataclass(frozen=True)
class KeyFactors:
    """How one layer keeps its keys.

    structure: exact (one row per key/value head), head (`rank` mixtures of them), spectral (one row of rotary pairs,
    pair j turned by column `frequencies[j]`), latent (`rank` numbers, rebuilt and rotated when read).
    """

    structure: str
    rank: int
    frequencies: tuple[int, ...] = ()

    def row_size(self, head_dim: int) -> int:
        """Numbers of one cached row."""
        if self.structure == "spectral":
            return 2 * len(self.frequencies)
        return self.rank if self.structure == "latent" else head_dim

    def rows(self) -> int:
        """Cached rows per token."""
        return self.rank if self.structure in ("exact", "head") else 1

    @classmethod
    def from_dict(cls, fields: Any, kv_heads: int, head_dim: int) -> KeyFactors:
        """From config.json's entry; ModelError for one that says no layer."""
        structure, most = _structure(fields, "key", KEY_STRUCTURES), {"exact": kv_heads, "head": kv_heads}
        if structure == "spectral":
            found = fields.get("frequencies")
            if not isinstance(found, list) or not found or any(f not in range(head_dim // 2) for f in found):
                raise _factor_error(f"a spectral key lists rotary columns below {head_dim // 2}", fields)
            return cls(structure, 1, tuple(int(f) for f in found))
        rank = kv_heads if structure == "exact" else fields.get("rank")
        return cls(structure, _rank(rank, most.get(structure, kv_heads * head_dim), fields))

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it."""
        if self.structure == "spectral":
            return {"structure": self.structure, "frequencies": list(self.frequencies)}
        return {"structure": self.structure} | ({} if self.structure == "exact" else {"rank": self.rank})


@dataclass(frozen=True)
class ValueFactors:
    """How one layer keeps its values: exact and head as for keys; latent: `rank` numbers for all heads.

    folded: the output projection acts on the latent of each head, [hidden, H * rank]; otherwise `v_up` [H, D, rank]
    comes first.
    """

    structure: str
    rank: int
    folded: bool = False

    def row_size(self, head_dim: int) -> int:
        """Numbers of one cached row."""
        return self.rank if self.structure == "latent" else head_dim

    def rows(self) -> int:
        """Cached rows per token."""
        return 1 if self.structure == "latent" else self.rank

    @classmethod
    def from_dict(cls, fields: Any, kv_heads: int, head_dim: int) -> ValueFactors:
        """From config.json's entry; ModelError for one that says no layer."""
        structure = _structure(fields, "value", VALUE_STRUCTURES)
        rank = kv_heads if structure == "exact" else fields.get("rank")
        most = kv_heads * head_dim if structure == "latent" else kv_heads
        folded = fields.get("folded", False)
        if not isinstance(folded, bool) or (folded and structure != "latent"):
            raise _factor_error("folded is true or false, and for latent values only", fields)
        return cls(structure, _rank(rank, most, fields), folded)

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it."""
        entry: dict[str, Any] = {"structure": self.structure}
        if self.structure != "exact":
            entry["rank"] = self.rank
        return entry | ({"folded": True} if self.folded else {})


@dataclass(frozen=True)
class LayerFactors:
    """Keys and values of one layer."""

    key: KeyFactors
    value: ValueFactors

    @classmethod
    def from_dict(cls, fields: Any, kv_heads: int, head_dim: int) -> LayerFactors:
        """From one entry of config.json's attention_factors."""
        if not isinstance(fields, dict) or set(fields) != {"key", "value"}:
            raise _factor_error('each layer has "key" and "value"', fields)
        return cls(
            KeyFactors.from_dict(fields["key"], kv_heads, head_dim),
            ValueFactors.from_dict(fields["value"], kv_heads, head_dim),
        )

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {"key": self.key.to_dict(), "value": self.value.to_dict()}

    def numbers(self, head_dim: int) -> int:
        """Numbers in the cache per token."""
        return sum(side.rows() * side.row_size(head_dim) for side in (self.key, self.value))


class ValueSide(nn.Module):
    """What both kinds of layers do with values; parameters live on the attention module itself (mixin)."""

    shape: AttentionShape
    factors: LayerFactors

    def add_value_side(self, output_bias: bool, value_bias: bool) -> None:
        """v_proj, a_v, v_up unless folded, and o_proj."""
        shape, value = self.shape, self.factors.value
        row = value.row_size(shape.head_dim)
        self.v_proj = nn.Linear(shape.hidden_size, value.rows() * row, bias=value_bias)
        self.a_v = nn.Parameter(torch.ones(value.rows(), shape.num_heads))
        width = row if value.structure != "latent" or value.folded else shape.head_dim
        if self.rebuilds_values:
            self.v_up = nn.Parameter(torch.zeros(shape.num_heads, shape.head_dim, row))
        self.o_proj = nn.Linear(shape.num_heads * width, shape.hidden_size, bias=output_bias)

    @property
    def rebuilds_values(self) -> bool:
        """Whether `v_up` comes between the attention and the output projection."""
        return self.factors.value.structure == "latent" and not self.factors.value.folded

    def value_rows(self, x: Tensor) -> Tensor:
        """b_v [B, S, R_V, E] of x [B, S, hidden]."""
        value = self.factors.value
        return split_last(self.v_proj(x), value.rows(), value.row_size(self.shape.head_dim))

    def project(self, output: Tensor) -> Tensor:
        """[B, S, H, E] of the attention to [B, S, hidden]."""
        if self.rebuilds_values:
            expanded = torch.matmul(output.transpose(1, 2), self.v_up.transpose(1, 2))  # [B, H, S, D]
            output = expanded.transpose(1, 2)
        projected: Tensor = self.o_proj(join_last(output))
        return projected

    def value_cache(self) -> CacheTensor:
        """What is kept of the values."""
        value = self.factors.value
        return CacheTensor(VALUE_B, (value.rows(), value.row_size(self.shape.head_dim)))


class StaticFactorAttention(ValueSide):
    """Keys rotated before they enter the cache: exact, head and spectral, all by `edgekit::TPAAttention`."""

    def __init__(
        self, shape: AttentionShape, factors: LayerFactors, *, qkv_bias: bool = False, output_bias: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.factors = shape, factors
        key = factors.key
        self.q_proj = nn.Linear(shape.hidden_size, shape.num_heads * shape.head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(shape.hidden_size, key.rows() * key.row_size(shape.head_dim), bias=qkv_bias)
        self.a_k = nn.Parameter(torch.ones(key.rows(), shape.num_heads))
        if key.structure == "spectral":
            # Complex weights [H, N], real and imaginary part.
            self.q_mix = nn.Parameter(torch.zeros(2, shape.num_heads, len(key.frequencies)))
        self.add_value_side(output_bias, qkv_bias)

    def cache_tensors(self) -> LayerCache:
        """Rotated key rows and value rows."""
        key = self.factors.key
        return CacheTensor(KEY_B, (key.rows(), key.row_size(self.shape.head_dim))), self.value_cache()

    def columns(self) -> tuple[int, ...]:
        """The column of the rotary tables of each pair of a key row."""
        return self.factors.key.frequencies or tuple(range(self.shape.head_dim // 2))

    def query(self, x: Tensor) -> Tensor:
        """Dense queries [B, S, H, D'], not rotated.

        A spectral query is mix[h, j] * (q[f_j] + i q[f_j + D/2]), real parts before imaginary ones: a complex factor on
        a rotary pair commutes with its rotation.
        """
        query = split_last(self.q_proj(x), self.shape.num_heads, self.shape.head_dim)
        if self.factors.key.structure != "spectral":
            return query
        columns = torch.tensor(list(self.columns()), dtype=torch.int64, device=query.device)
        real = query.index_select(-1, columns)
        imaginary = query.index_select(-1, columns + self.shape.head_dim // 2)
        mix_real, mix_imaginary = self.q_mix[0], self.q_mix[1]
        return torch.cat((real * mix_real - imaginary * mix_imaginary, imaginary * mix_real + real * mix_imaginary), -1)

    def key_rows(self, x: Tensor) -> Tensor:
        """b_k [B, S, R_K, D'] of x [B, S, hidden], not rotated."""
        key = self.factors.key
        return split_last(self.k_proj(x), key.rows(), key.row_size(self.shape.head_dim))

    def forward(
        self, x: Tensor, past: tuple[Tensor, ...], attention_mask: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output [B, S, hidden] and the present rows for x [B, S, hidden]; `past` as `cache_tensors` says."""
        columns = torch.tensor(list(self.columns()), dtype=torch.int64, device=x.device)
        output, present = tpa_attention(
            None,
            self.query(x),
            self.a_k,
            self.key_rows(x),
            self.a_v,
            self.value_rows(x),
            past,
            attention_mask,
            cos,
            sin,
            columns,
            scale=self.shape.scale,
            value_scale=1.0,
        )
        return self.project(output), present


def _structure(fields: Any, side: str, known: tuple[str, ...]) -> str:
    structure = fields.get("structure") if isinstance(fields, dict) else None
    if structure not in known:
        raise _factor_error(f"a {side}'s structure is one of {', '.join(known)}", fields)
    return str(structure)


def _rank(rank: Any, most: int, fields: Any) -> int:
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
        raise _factor_error(f"the rank is from 1 to {most}", fields)
    return rank


def _factor_error(rule: str, fields: Any) -> ModelError:
    return ModelError(f"attention_factors: {rule}.", f"It is {fields!r}.", "Correct the checkpoint's config.json.")
