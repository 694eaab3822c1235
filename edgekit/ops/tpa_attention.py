"""Tensor product attention over a cache of factors, as one operator. See `edgekit.ops.specs.tpa_attention`.

Keys and values of head h are sums of products of a head factor and a feature factor,

    K[m,h] = sum_s A_K[m,s,h] rot_m(B_K[m,s])        V[m,h] = sum_u A_V[m,u,h] B_V[m,u]

and the cache holds the factors. `tpa_attention` is the plain reference, which makes K and V; `blocked_tpa_attention` is
what native code does, and makes neither. Both compute in float32 (float64 for float64 inputs).

Letters: B batch, S new tokens, P cached tokens, T = P + S, H heads, D size of a query or key head, E size of a value
head, R_Q, R_K, R_V ranks, F frequencies in the rotary tables. In einsums: n new token, m slot, r, s, u ranks of query,
key and value.

Source: Tensor Product Attention Is All You Need (arXiv 2501.06425), equations 3.1-3.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.spec import Attributes
from edgekit.ops.specs.tpa_attention import SPEC
from edgekit.ops.torch_op import register
from edgekit.ops.tpa_operands import Operands, attributes_of, by_name, contextual, emit, inputs_of, rotated_rows

__all__ = ["OP", "SPEC", "blocked", "blocked_tpa_attention", "operands", "reference", "tpa_attention"]


def tpa_attention(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    past: tuple[Tensor, ...],
    attention_mask: Tensor,
    cos: Tensor,
    sin: Tensor,
    frequencies: Tensor,
    *,
    scale: float,
    value_scale: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Append factors to the cache and attend causally.

    Which slots a query sees, and which position a token has, is as in `edgekit.ops.causal_attention`: slot j is
    visible to the query in slot i if j <= i, and it holds a real token or is the query's own; a position is the number
    of real tokens before. What padded slots hold, NaN included, has no influence on the rows of real tokens.

    Args:
        a_q: [B, S, R_Q, H]; None where the queries are dense.
        b_q: [B, S, R_Q, D], or dense queries [B, S, H, D]; not rotated.
        a_k: [B, S, R_K, H] contextual, or [R_K, H] the same for all tokens.
        b_k: [B, S, R_K, D], not rotated.
        a_v: [B, S, R_V, H] or [R_V, H].
        b_v: [B, S, R_V, E].
        past: the cache, in order: a_k [B, P, R_K, H] where contextual, b_k [B, P, R_K, D] rotated,
            a_v [B, P, R_V, H] where contextual, b_v [B, P, R_V, E]; P may be 0.
        attention_mask: int64 [B, T], 1 for real tokens, 0 for padding.
        cos: [max_positions, F].
        sin: [max_positions, F].
        frequencies: int64 [D/2], the column of cos and sin that turns the pair (j, j + D/2); arange(D/2) for RoPE.
        scale: factor on the scores.
        value_scale: factor on the output.

    Returns:
        output [B, S, H, E], and the cache grown to T, in the order of `past`; in the dtype of `b_q`.
    """
    operands = Operands(a_q, b_q, a_k, b_k, a_v, b_v, past, attention_mask, cos, sin, frequencies, scale, value_scale)
    if torch.onnx.is_in_onnx_export():
        return emit(operands)
    compute = torch.float64 if b_q.dtype == torch.float64 else torch.float32
    query, new_b_k = rotated_rows(operands, compute)
    present = grown(operands, new_b_k)
    all_a_k, all_b_k, all_a_v, all_b_v = (x.to(compute) for x in factors(operands, present))
    if a_q is not None:
        query = torch.einsum("bnrh,bnrd->bnhd", a_q.to(compute), query)
    key = torch.einsum("bmsh,bmsd->bmhd", all_a_k, all_b_k)
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) * scale

    new, total = b_k.shape[1], attention_mask.shape[1]
    slot_i = torch.arange(total - new, total, device=b_k.device)[:, None]
    slot_j = torch.arange(total, device=b_k.device)
    real = (attention_mask != 0)[:, None, :]
    visible = (slot_j <= slot_i) & (real | (slot_j == slot_i))
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)

    # A weight of 0 does not silence a NaN, so padded slots are emptied; the term of a padding token's own slot, which
    # it sees, is added by itself.
    value = torch.einsum("bmuh,bmue->bmhe", all_a_v, all_b_v)
    output = torch.einsum("bhnm,bmhe->bnhe", weights, value.masked_fill(~real[:, 0, :, None, None], 0))
    own = weights.diagonal(total - new, -2, -1).transpose(1, 2)[..., None] * value[:, total - new :]
    output = output + own.masked_fill(real[:, 0, total - new :, None, None], 0)
    return (output * value_scale).to(b_q.dtype), present


def grown(operands: Operands, new_b_k: Tensor) -> tuple[Tensor, ...]:
    """The presents: each past with its new rows after it, in the dtype of the cache."""
    new = (operands.a_k, new_b_k, operands.a_v, operands.b_v)
    kept = [row for row, keep in zip(new, contextual(operands), strict=True) if keep]
    return tuple(torch.cat((old, row.to(old.dtype)), 1) for old, row in zip(operands.past, kept, strict=True))


def factors(operands: Operands, present: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a_k [B, T, R_K, H], b_k, a_v and b_v of all slots; a constant a is the same for each (as a view)."""
    rest = list(present)
    batch, total = present[-1].shape[:2]
    found = [
        rest.pop(0) if keep else x.expand(batch, total, *x.shape)
        for x, keep in zip((operands.a_k, operands.b_k, operands.a_v, operands.b_v), contextual(operands), strict=True)
    ]
    return found[0], found[1], found[2], found[3]


def blocked_tpa_attention(
    a_q: Tensor | None,
    b_q: Tensor,
    a_k: Tensor,
    b_k: Tensor,
    a_v: Tensor,
    b_v: Tensor,
    past: tuple[Tensor, ...],
    attention_mask: Tensor,
    cos: Tensor,
    sin: Tensor,
    frequencies: Tensor,
    *,
    scale: float,
    value_scale: float,
    block: int = 64,
    splits: int = 3,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`tpa_attention` as native code computes it: neither K nor V is ever made.

    The slots are dealt to `splits` in runs of whole blocks. Each split keeps per head and query a running maximum, the
    sum of exponentials and the unnormalised output (online softmax); the splits are merged by their maxima. Operands,
    results and their shapes are those of `tpa_attention`.
    """
    operands = Operands(a_q, b_q, a_k, b_k, a_v, b_v, past, attention_mask, cos, sin, frequencies, scale, value_scale)
    compute = torch.float64 if b_q.dtype == torch.float64 else torch.float32
    query, new_b_k = rotated_rows(operands, compute)
    present = grown(operands, new_b_k)
    cache = factors(operands, present)
    total = attention_mask.shape[1]
    blocks = -(-total // block)
    per_split = -(-blocks // splits) * block
    partials = []
    for first in range(0, total, per_split):
        state = _State.empty(operands, compute)
        for start in range(first, min(first + per_split, total), block):
            _add_block(state, operands, query, cache, start, min(start + block, total))
        partials.append(state)
    merged = partials[0]
    for other in partials[1:]:
        merged.merge(other)
    output = merged.output / merged.sum[..., None] * value_scale
    return output.transpose(1, 2).to(b_q.dtype), present


class _State:
    """Online softmax: maximum and sum [B, H, S], unnormalised output [B, H, S, E]."""

    def __init__(self, maximum: Tensor, total: Tensor, output: Tensor) -> None:
        self.maximum, self.sum, self.output = maximum, total, output

    @staticmethod
    def empty(operands: Operands, compute: torch.dtype) -> _State:
        shape = (operands.b_k.shape[0], operands.a_k.shape[-1], operands.b_k.shape[1])
        zeros = torch.zeros(shape, dtype=compute, device=operands.b_k.device)
        return _State(zeros - torch.inf, zeros, zeros[..., None].expand(*shape, operands.b_v.shape[-1]))

    def merge(self, other: _State) -> None:
        maximum = torch.maximum(self.maximum, other.maximum)
        # Nothing seen yet: exp(-inf - -inf) would be NaN, and any finite maximum gives the zero it should be.
        safe = maximum.masked_fill(maximum == -torch.inf, 0)
        mine, theirs = (self.maximum - safe).exp(), (other.maximum - safe).exp()
        self.sum = self.sum * mine + other.sum * theirs
        self.output = self.output * mine[..., None] + other.output * theirs[..., None]
        self.maximum = maximum


def _add_block(
    state: _State,
    operands: Operands,
    query: Tensor,
    cache: tuple[Tensor, Tensor, Tensor, Tensor],
    start: int,
    end: int,
) -> None:
    """Let every query attend to the slots start .. end - 1."""
    compute, new, total = query.dtype, query.shape[1], operands.attention_mask.shape[1]
    a_k, b_k, a_v, b_v = (x[:, start:end].to(compute) for x in cache)
    if operands.a_q is not None:
        products = torch.einsum("bnrd,bmsd->bnmrs", query, b_k)  # shared by all heads
        scores = torch.einsum("bnrh,bmsh,bnmrs->bhnm", operands.a_q.to(compute), a_k, products)
    else:
        scores = torch.einsum("bmsh,bhnms->bhnm", a_k, torch.einsum("bnhd,bmsd->bhnms", query, b_k))
    slot_i = torch.arange(total - new, total, device=query.device)[:, None]
    slot_j = torch.arange(start, end, device=query.device)
    real = (operands.attention_mask[:, start:end] != 0)[:, None, :]
    visible = ((slot_j <= slot_i) & (real | (slot_j == slot_i)))[:, None]
    scores = (scores * operands.scale).masked_fill(~visible, -torch.inf)
    maximum = scores.amax(-1)
    safe = maximum.masked_fill(maximum == -torch.inf, 0)[..., None]
    weights = (scores - safe).exp()
    empty = ~real[:, 0, :, None, None]
    mixed = torch.einsum("bhnm,bmuh->bhnmu", weights, a_v.masked_fill(empty, 0))
    output = torch.einsum("bhnmu,bmue->bhne", mixed, b_v.masked_fill(empty, 0))
    # The own slots of padding tokens, which only they see.
    first_own = max(start, total - new)
    if first_own < end:
        own = torch.arange(first_own, end, device=query.device)
        rows, slots = own - (total - new), own - start
        term = torch.einsum("bhn,bnuh,bnue->bhne", weights[:, :, rows, slots], a_v[:, slots], b_v[:, slots])
        output[:, :, rows] += term.masked_fill(real[:, :, slots, None], 0)
    state.merge(_State(maximum, weights.sum(-1), output))


def reference(attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The operator by the names of its operands."""
    return by_name(tpa_attention, attributes, inputs)


def blocked(attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The blocked form by the names of its operands."""
    return by_name(blocked_tpa_attention, attributes, inputs)


def operands(*arguments: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Attributes and inputs by name, from the arguments of `OP`."""
    given = Operands(*arguments)
    return attributes_of(given), inputs_of(given)


def _outputs(*arguments: Any) -> list[Tensor]:
    *tensors, scale, value_scale = arguments
    output, present = tpa_attention(*tensors, scale=scale, value_scale=value_scale)
    return [output, *present]


#: `torch.ops.edgekit.tpa_attention`.
OP = register(
    SPEC,
    "(Tensor? a_q, Tensor b_q, Tensor a_k, Tensor b_k, Tensor a_v, Tensor b_v, Tensor[] past, Tensor attention_mask, "
    "Tensor cos, Tensor sin, Tensor frequencies, float scale, float value_scale) -> Tensor[]",
    _outputs,
    operands,
)
