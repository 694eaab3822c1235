"""What must hold of tensor product attention whatever its form, in float64 at 1e-12."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.ops.causal_attention import causal_attention
from edgekit.ops.tpa_attention import blocked_tpa_attention, tpa_attention

FORMS = pytest.mark.parametrize("attend", [tpa_attention, blocked_tpa_attention])
POSITIONS = 300
HEADS, SIZE, WIDTH = 6, 8, 5


class Draw:
    """Seeded float64 operands."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self._generator)

    def factors(self, batch: int, new: int, ranks: tuple[int, int, int], heads: int = HEADS) -> dict[str, Any]:
        """A contextual prefill: everything but the mask."""
        query, key, value = ranks
        cos, sin = tables(SIZE)
        return {
            "a_q": self(batch, new, query, heads),
            "b_q": self(batch, new, query, SIZE),
            "a_k": self(batch, new, key, heads),
            "b_k": self(batch, new, key, SIZE),
            "a_v": self(batch, new, value, heads),
            "b_v": self(batch, new, value, WIDTH),
            "past": (
                self(batch, 0, key, heads),
                self(batch, 0, key, SIZE),
                self(batch, 0, value, heads),
                self(batch, 0, value, WIDTH),
            ),
            "attention_mask": torch.ones(batch, new, dtype=torch.int64),
            "cos": cos,
            "sin": sin,
            "frequencies": torch.arange(SIZE // 2),
            "scale": 0.3,
            "value_scale": 0.7,
        }


def tables(size: int) -> tuple[Tensor, Tensor]:
    frequencies = 100.0 ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(POSITIONS, dtype=torch.float64)[:, None] * frequencies
    return angles.cos(), angles.sin()


def close(got: Tensor, want: Tensor, tolerance: float = 1e-12) -> None:
    assert want.abs().max() > 0.05, "nothing to compare"
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("new", "padding"), [(1, 0), (37, 0), (131, 70), (257, 200)])
@pytest.mark.parametrize(("block", "splits"), [(64, 1), (64, 3), (16, 5), (7, 40)])
def test_blocks_equal_the_whole(new: int, padding: int, block: int, splits: int) -> None:
    operands = Draw().factors(2, new, (3, 2, 4), heads=61)
    operands["attention_mask"][1, :padding] = 0
    want, _ = tpa_attention(**operands)
    got, _ = blocked_tpa_attention(**operands, block=block, splits=splits)
    close(got, want)


@pytest.mark.parametrize("groups", [1, 2, 6], ids=["multi-query", "grouped", "multi-head"])
@FORMS
def test_special_cases_are_ordinary_attention(groups: int, attend: Any) -> None:
    """MHA: a_i = e_i; GQA: a_j = the mask of group j; MQA: a = 1 (with the factors 1/R in the scales instead)."""
    draw, new, past = Draw(1), 5, 70
    query, key, value = draw(2, new, HEADS, SIZE), draw(2, new, groups, SIZE), draw(2, new, groups, SIZE)
    past_key, past_value = draw(2, groups, past, SIZE), draw(2, groups, past, SIZE)
    mask = torch.ones(2, past + new, dtype=torch.int64)
    mask[1, :66] = 0
    cos, sin = tables(SIZE)
    want, want_key, want_value = causal_attention(
        *(x.flatten(2) for x in (query, key, value)),
        past_key, past_value, mask, cos, sin, num_heads=HEADS, kv_heads=groups, scale=0.4,
    )  # fmt: skip
    members = torch.eye(groups, dtype=torch.float64).repeat_interleave(HEADS // groups, 1)
    identity = torch.eye(HEADS, dtype=torch.float64).expand(2, new, HEADS, HEADS)
    cache = (past_key.transpose(1, 2), past_value.transpose(1, 2))
    rotary = (cos, sin, torch.arange(SIZE // 2))
    for a_q in (identity, None):
        got, present = attend(
            a_q, query, members, key, members, value, cache, mask, *rotary, scale=0.4, value_scale=1.0
        )
        close(got, want.view(2, new, HEADS, SIZE))
        close(present[0], want_key.transpose(1, 2))
        close(present[1], want_value.transpose(1, 2))


@FORMS
def test_contextual_factors_that_do_not_vary_equal_constant_ones(attend: Any) -> None:
    operands = Draw(2).factors(2, 67, (3, 2, 3))
    a_k, a_v = operands["a_k"][0, 0], operands["a_v"][0, 0]
    contextual = operands | {"a_k": a_k.expand(2, 67, *a_k.shape), "a_v": a_v.expand(2, 67, *a_v.shape)}
    constant = operands | {"a_k": a_k, "a_v": a_v, "past": (operands["past"][1], operands["past"][3])}
    want, cache = attend(**contextual)
    got, (b_k, b_v) = attend(**constant)
    close(got, want)
    assert torch.equal(b_k, cache[1])
    assert torch.equal(b_v, cache[3])


@FORMS
def test_constant_head_factors_are_multi_query_attention(attend: Any) -> None:
    """The deployment identity: head size R_K D for keys, R_V E for values, which are mixed by A_V afterwards."""
    draw, new, (key_rank, value_rank) = Draw(3), 67, (2, 3)
    operands = draw.factors(2, new, (3, key_rank, value_rank))
    a_k, a_v = draw(key_rank, HEADS), draw(value_rank, HEADS)
    query = draw(2, new, HEADS, SIZE)
    operands |= {"a_q": None, "b_q": query, "a_k": a_k, "a_v": a_v}
    operands["past"] = (operands["past"][1], operands["past"][3])
    got, _ = attend(**operands)

    # One head of keys [R_K D] whose queries are the mixed ones. Its rotation turns the pairs of each of the R_K parts
    # alike: halves first, as in half-split RoPE on R_K D features, with every frequency repeated R_K times.
    mixed = torch.einsum("sh,bnhd->bnhsd", a_k, query)
    wide_query, wide_key = halves_first(mixed), halves_first(operands["b_k"][:, :, None])
    cos, sin = (table.repeat(1, key_rank) for table in tables(SIZE))
    values = operands["b_v"].flatten(2)
    pad = torch.nn.functional.pad
    size = max(wide_key.shape[-1], values.shape[-1])
    assert size == wide_key.shape[-1]
    output, _, _ = causal_attention(
        wide_query.flatten(2),
        wide_key.flatten(2),
        pad(values, (0, size - values.shape[-1])),
        draw(2, 1, 0, size),
        draw(2, 1, 0, size),
        operands["attention_mask"],
        cos,
        sin,
        num_heads=HEADS,
        kv_heads=1,
        scale=operands["scale"],
    )
    parts = output.view(2, new, HEADS, size)[..., : value_rank * WIDTH].unflatten(-1, (value_rank, WIDTH))
    close(got, operands["value_scale"] * torch.einsum("uh,bnhue->bnhe", a_v, parts))


def halves_first(x: Tensor) -> Tensor:
    """[.., R, D] → [.., R D]: the first halves of all R rows, then the second ones."""
    return x.unflatten(-1, (2, -1)).transpose(-3, -2).flatten(-3)


@FORMS
@pytest.mark.parametrize("shift", [1, 64, 150])
def test_scores_depend_on_the_distance_only(shift: int, attend: Any) -> None:
    """Shifting all positions changes nothing; stretching them does."""
    operands = Draw(4).factors(1, 5, (3, 2, 2))
    want, _ = attend(**operands)
    cos, sin = operands["cos"], operands["sin"]
    moved, _ = attend(**operands | {"cos": cos[shift:], "sin": sin[shift:]})
    close(moved, want)
    stretched, _ = attend(**operands | {"cos": cos[::2], "sin": sin[::2]})
    assert (stretched - want).abs().max() > 1e-3, "positions have no influence at all"


@FORMS
def test_rotating_the_factors_rotates_the_keys(attend: Any) -> None:
    """RoPE acts on rows, so it commutes with the sum over ranks: rotated factors give rotated queries and keys."""
    operands = Draw(5).factors(2, 9, (3, 2, 2))
    query = torch.einsum("bnrh,bnrd->bnhd", operands["a_q"], operands["b_q"])
    dense, _ = attend(**operands | {"a_q": None, "b_q": query})
    want, _ = attend(**operands)
    close(dense, want)
    key = torch.einsum("bnrh,bnrd->bnhd", operands["a_k"], operands["b_k"])
    identity = torch.eye(HEADS, dtype=torch.float64)
    cache = (operands["past"][1].new_empty(2, 0, HEADS, SIZE), *operands["past"][2:])
    whole, _ = attend(**operands | {"a_k": identity, "b_k": key, "past": cache})
    close(whole, want)


@FORMS
@pytest.mark.parametrize("pieces", [(1,) * 67, (64, 1, 1, 1), (3, 61, 3), (66, 1)])
def test_pieces_equal_the_whole(pieces: tuple[int, ...], attend: Any) -> None:
    operands = Draw(6).factors(2, 67, (3, 2, 1))
    operands["attention_mask"][0, :3] = 0
    want, want_cache = attend(**operands)
    past, outputs, start = operands["past"], [], 0
    for length in pieces:
        rows = {name: operands[name][:, start : start + length] for name in ("a_q", "b_q", "a_k", "b_k", "a_v", "b_v")}
        mask = operands["attention_mask"][:, : start + length]
        output, past = attend(**operands | rows | {"past": past, "attention_mask": mask})
        outputs.append(output)
        start += length
    close(torch.cat(outputs, 1), want)
    for piece, whole in zip(past, want_cache, strict=True):
        close(piece, whole)


@FORMS
@pytest.mark.parametrize("padding", [3, 66, 130])
def test_left_padding_changes_nothing_even_nan(padding: int, attend: Any) -> None:
    operands = Draw(7).factors(1, 5, (3, 2, 2))
    want, _ = attend(**operands)
    padded = dict(operands)
    for name in ("a_q", "b_q", "a_k", "b_k", "a_v", "b_v"):
        padded[name] = torch.nn.functional.pad(operands[name], (0, 0, 0, 0, padding, 0), value=torch.nan)
    padded["attention_mask"] = torch.nn.functional.pad(operands["attention_mask"], (padding, 0))
    got, _ = attend(**padded)
    close(got[:, padding:], want)
    padded["attention_mask"] = torch.ones_like(padded["attention_mask"])
    seen, _ = attend(**padded)
    assert seen[:, padding:].isnan().all(), "the same memory, unmasked, must be seen"


def test_a_later_token_has_no_influence() -> None:
    operands = Draw(8).factors(1, 70, (3, 2, 2))
    want, _ = tpa_attention(**operands)
    for name in ("a_k", "b_k", "a_v", "b_v"):
        changed = operands[name].clone()
        changed[:, 69] += 1
        for attend in (tpa_attention, blocked_tpa_attention):
            got, _ = attend(**operands | {name: changed})
            close(got[:, :69], want[:, :69])
            assert (got[:, 69] - want[:, 69]).abs().max() > 1e-6, name


@FORMS
def test_frequencies_select_columns(attend: Any) -> None:
    """A column chosen twice and one left out are what a table with these columns gives."""
    operands = Draw(9).factors(2, 7, (3, 2, 2))
    chosen = torch.tensor([0, 2, 2, 1])
    got, _ = attend(**operands | {"frequencies": chosen})
    want, _ = attend(**operands | {"cos": operands["cos"][:, chosen], "sin": operands["sin"][:, chosen]})
    assert torch.equal(got, want)
    plain, _ = attend(**operands)
    assert (got - plain).abs().max() > 1e-3


def test_the_reference_equals_its_definition() -> None:
    """One query and one head at a time, from the formulas."""
    operands = Draw(10).factors(2, 6, (3, 2, 4))
    operands["attention_mask"][1, :2] = 0
    got, _ = tpa_attention(**operands)
    a = {name: x.numpy() for name, x in operands.items() if isinstance(x, Tensor)}

    def turned(rows: np.ndarray, position: int) -> np.ndarray:
        cos, sin, half = a["cos"][position], a["sin"][position], SIZE // 2
        x1, x2 = rows[..., :half], rows[..., half:]
        return np.concatenate((x1 * cos - x2 * sin, x2 * cos + x1 * sin), -1)

    for b, i, h in np.ndindex(2, 6, HEADS):
        position = np.maximum(np.cumsum(a["attention_mask"][b]) - 1, 0)
        query = a["a_q"][b, i, :, h] @ turned(a["b_q"][b, i], position[i])
        slots = [j for j in range(i + 1) if a["attention_mask"][b, j] or j == i]
        scores = np.array([query @ (a["a_k"][b, j, :, h] @ turned(a["b_k"][b, j], position[j])) for j in slots]) * 0.3
        weights = np.exp(scores - scores.max())
        values = np.array([a["a_v"][b, j, :, h] @ a["b_v"][b, j] for j in slots])
        np.testing.assert_allclose(got[b, i, h], 0.7 * (weights @ values) / weights.sum(), rtol=0, atol=1e-13)
