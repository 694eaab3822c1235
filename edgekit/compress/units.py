"""What is quantised together: matrices that read one input and that the runtime multiplies in one product."""

from __future__ import annotations

from collections.abc import Iterable

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
HEAD_UNIT = "lm_head"

#: Last part of a module's name → the unit it belongs to, within its parent module.
_TOGETHER = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    **{f"{side}_{factor}_proj": "factor_proj" for side in "qkv" for factor in "ab"},
}


def unit_of(weight: str) -> str:
    """The unit of a weight: "model.layers.0.self_attn.qkv_proj" for "model.layers.0.self_attn.k_proj.weight"."""
    if weight in (EMBEDDING, HEAD):
        return HEAD_UNIT
    module = weight.removesuffix(".weight")
    parent, _, last = module.rpartition(".")
    return f"{parent}.{_TOGETHER.get(last, last)}"


def units_of(weights: Iterable[str]) -> dict[str, list[str]]:
    """Unit → its weights, both in the given order. An embedding beside a head of its own belongs to no unit."""
    names = list(weights)
    units: dict[str, list[str]] = {}
    for name in names:
        if name == EMBEDDING and HEAD in names:
            continue
        units.setdefault(unit_of(name), []).append(name)
    return units


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is a matrix that quantisation may touch."""
    return len(shape) == 2 and name.endswith(".weight")
