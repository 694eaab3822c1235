"""Operands of `edgekit::TPAAttention` in PyTorch: by position, by name, and as a node of a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.causal_attention import rotate
from edgekit.ops.spec import Attributes
from edgekit.ops.specs.tpa_attention import SPEC
from edgekit.ops.torch_op import symbolic

PRESENTS = ("present_a_k", "present_b_k", "present_a_v", "present_b_v")


@dataclass
class Operands:
    """The operands in the order of `tpa_attention`; shapes there."""

    a_q: Tensor | None
    b_q: Tensor
    a_k: Tensor
    b_k: Tensor
    a_v: Tensor
    b_v: Tensor
    past: tuple[Tensor, ...]
    attention_mask: Tensor
    cos: Tensor
    sin: Tensor
    frequencies: Tensor
    scale: float
    value_scale: float


def contextual(operands: Operands) -> tuple[bool, bool, bool, bool]:
    """Which of a_k, b_k, a_v, b_v are cached."""
    return len(operands.a_k.shape) == 4, True, len(operands.a_v.shape) == 4, True


def rotated_rows(operands: Operands, compute: torch.dtype) -> tuple[Tensor, Tensor]:
    """b_q and b_k at the positions of their tokens: [B, S, R_Q or H, D] in `compute`, and [B, S, R_K, D]."""
    total, new = operands.attention_mask.shape[1], operands.b_k.shape[1]
    positions = (operands.attention_mask.cumsum(1) - 1).clamp(min=0)[:, total - new :]
    cos, sin = (table[positions][..., operands.frequencies].to(compute) for table in (operands.cos, operands.sin))
    return rotate(operands.b_q.to(compute), cos, sin), rotate(operands.b_k.to(compute), cos, sin)


def attributes_of(operands: Operands) -> dict[str, Any]:
    """Every attribute of the node."""
    key, _, value, _ = contextual(operands)
    given = {
        "scale": float(operands.scale),
        "value_scale": float(operands.value_scale),
        "factored_query": int(operands.a_q is not None),
        "contextual_key": int(key),
        "contextual_value": int(value),
    }
    return SPEC.complete(given)


def inputs_of(operands: Operands) -> dict[str, Tensor]:
    """The inputs of the node by name, in order; those that do not exist are left out."""
    o = operands
    query = [] if o.a_q is None else [o.a_q]
    given = [*query, o.b_q, o.a_k, o.b_k, o.a_v, o.b_v, *o.past, o.attention_mask, o.cos, o.sin, o.frequencies]
    return {operand.name: tensor for operand, tensor in zip(SPEC.active_inputs(attributes_of(o)), given, strict=True)}


def emit(operands: Operands) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One node of the traced graph."""
    outputs = symbolic(SPEC, attributes_of(operands), inputs_of(operands))
    return outputs["output"], tuple(outputs[name] for name in PRESENTS if name in outputs)


Attention = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]


def by_name(attend: Attention, attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Call a form that has the signature of `tpa_attention` with operands by name."""
    past = tuple(value for name, value in inputs.items() if name.startswith("past_"))
    rest = {name: value for name, value in inputs.items() if not name.startswith("past_")}
    rest.setdefault("a_q", None)  # type: ignore[arg-type]
    output, present = attend(**rest, past=past, scale=attributes["scale"], value_scale=attributes["value_scale"])
    active = [operand.name for operand in SPEC.active_outputs(attributes)]
    return dict(zip(active, (output, *present), strict=True))
