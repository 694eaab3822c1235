"""edgekit::TPAAttention in NumPy, float64, one query at a time: written from the definition, not from any other form.

K[m,h] = sum_s A_K[m,s,h] rot_m(B_K[m,s]), V[m,h] = sum_u A_V[m,u,h] B_V[m,u] (TPA, arXiv 2501.06425, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Half-split rotation of [..., D] by [D/2]."""
    x1, x2 = np.split(x, 2, -1)
    return np.concatenate((x1 * cos - x2 * sin, x2 * cos + x1 * sin), -1)


def tpa_attention(attributes: dict[str, Any], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs; the presents in the dtype of the inputs, `output` in float64. Pasts may be longer than T - S."""
    dtype = inputs["b_q"].dtype
    wide = {name: value.astype(np.float64) for name, value in inputs.items() if value.dtype == dtype}
    mask, frequencies = inputs["attention_mask"] != 0, inputs["frequencies"]
    batch, total = mask.shape
    new = inputs["b_k"].shape[1]
    past = total - new
    compute = np.float64 if dtype == np.float64 else np.float32
    present = {}
    for name in ("a_k", "b_k", "a_v", "b_v"):
        if f"past_{name}" not in inputs:
            continue
        old = inputs[f"past_{name}"]
        rows = inputs[name].copy()
        if name == "b_k":
            for b in range(batch):
                for i in range(new):
                    position = max(int(mask[b, : past + i + 1].sum()) - 1, 0)
                    cos, sin = (inputs[x][position, frequencies].astype(compute) for x in ("cos", "sin"))
                    rows[b, i] = rotate(inputs["b_k"][b, i].astype(compute), cos, sin).astype(dtype)
        if old.shape[1] == past:
            present[name] = np.concatenate((old, rows), 1)
        else:
            present[name] = old.copy()
            present[name][:, past:total] = rows
    heads = inputs["a_k"].shape[-1]
    output = np.zeros((batch, new, heads, inputs["b_v"].shape[-1]))
    scale, value_scale = float(np.float32(attributes["scale"])), float(np.float32(attributes["value_scale"]))
    for b in range(batch):
        for i in range(new):
            slots = [j for j in range(past + i + 1) if mask[b, j] or j == past + i]
            position = max(int(mask[b, : past + i + 1].sum()) - 1, 0)
            query = rotate(wide["b_q"][b, i], wide["cos"][position, frequencies], wide["sin"][position, frequencies])
            if attributes["factored_query"]:
                query = np.einsum("rh,rd->hd", wide["a_q"][b, i], query)
            factors = {}
            for name in ("a_k", "b_k", "a_v", "b_v"):
                if name in present:
                    factors[name] = present[name][b, slots].astype(np.float64)
                else:
                    factors[name] = np.broadcast_to(wide[name], (len(slots), *wide[name].shape))
            key = np.einsum("msh,msd->mhd", factors["a_k"], factors["b_k"])
            value = np.einsum("muh,mue->mhe", factors["a_v"], factors["b_v"])
            scores = scale * np.einsum("hd,mhd->hm", query, key)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            output[b, i] = value_scale * np.einsum("hm,mhe->he", weights, value)
    return {"output": output, **{f"present_{name}": value for name, value in present.items()}}


@dataclass(frozen=True)
class Sizes:
    """Sizes of one call; `capacity` is None where the cache grows."""

    batch: int = 1
    new: int = 1
    past: int = 100
    heads: int = 3
    key_size: int = 8
    value_size: int = 8
    rank_q: int = 3
    rank_k: int = 2
    rank_v: int = 2
    columns: int = 4
    positions: int = 0
    capacity: int | None = None

    @property
    def total(self) -> int:
        return self.past + self.new


def attributes_of(
    s: Sizes, factored_query: int = 1, contextual_key: int = 1, contextual_value: int = 1
) -> dict[str, Any]:
    return {
        "scale": 1.0 / (s.rank_k * s.key_size**0.5 * (s.rank_q if factored_query else 1)),
        "value_scale": 1.0 / s.rank_v,
        "factored_query": factored_query,
        "contextual_key": contextual_key,
        "contextual_value": contextual_value,
    }


def inputs_of(
    s: Sizes, attributes: dict[str, Any], dtype: str, mask: np.ndarray | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random operands. Padded slots and memory behind the slots in use hold NaN."""
    random = np.random.default_rng(seed)
    mask = np.ones((s.batch, s.total), np.int64) if mask is None else mask.astype(np.int64)
    slots = s.past if s.capacity is None else s.capacity
    angle = random.uniform(-3, 3, (s.positions or s.total, s.columns))

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(DTYPES[dtype])

    def fresh(*row: int) -> np.ndarray:
        made = normal(s.batch, s.new, *row)
        made[mask[:, s.past :] == 0] = np.nan
        return made

    def past(*row: int) -> np.ndarray:
        made = normal(s.batch, slots, *row)
        made[:, : s.past][mask[:, : s.past] == 0] = np.nan
        made[:, s.past :] = np.nan
        return made

    inputs = {}
    if attributes["factored_query"]:
        inputs["a_q"] = normal(s.batch, s.new, s.rank_q, s.heads)
    inputs["b_q"] = normal(s.batch, s.new, s.rank_q if attributes["factored_query"] else s.heads, s.key_size)
    inputs["a_k"] = fresh(s.rank_k, s.heads) if attributes["contextual_key"] else normal(s.rank_k, s.heads)
    inputs["b_k"] = fresh(s.rank_k, s.key_size)
    inputs["a_v"] = fresh(s.rank_v, s.heads) if attributes["contextual_value"] else normal(s.rank_v, s.heads)
    inputs["b_v"] = fresh(s.rank_v, s.value_size)
    if attributes["contextual_key"]:
        inputs["past_a_k"] = past(s.rank_k, s.heads)
    inputs["past_b_k"] = past(s.rank_k, s.key_size)
    if attributes["contextual_value"]:
        inputs["past_a_v"] = past(s.rank_v, s.heads)
    inputs["past_b_v"] = past(s.rank_v, s.value_size)
    inputs["attention_mask"] = mask
    inputs["cos"], inputs["sin"] = np.cos(angle).astype(DTYPES[dtype]), np.sin(angle).astype(DTYPES[dtype])
    inputs["frequencies"] = random.integers(0, s.columns, s.key_size // 2)
    return inputs
