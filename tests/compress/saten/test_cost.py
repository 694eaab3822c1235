"""The cost of products with compressed matrices: sums by hand, and the measured table of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.compress.blockwise import quantize_blocks
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.cost import RATES, int4_seconds, seconds
from edgekit.compress.saten.factors import train_within
from edgekit.compress.saten.pieces import Pair, Piece, base
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.sparse_format import sparse
from edgekit.compress.saten.storage import FLOAT, stored

PAGE = Path(__file__).parents[3] / "docs" / "tt-sparse-kernels.md"
DRAW = np.random.default_rng(0)


def matrix(outputs: int, inputs: int, rank: int, pattern: str) -> CompressedMatrix:
    pieces: list[Piece] = []
    if rank:
        pieces.append(Pair(*(stored(np.ones((rank, side), np.float32), FLOAT) for side in (inputs, outputs))))
    if pattern:
        rest, sparsity = torch.from_numpy(DRAW.standard_normal((outputs, inputs)).astype("f")), sparsity_named(pattern)
        pieces.append(sparse(rest, sparsity.mask(rest.abs()), sparsity, FLOAT))
    return CompressedMatrix("by hand", (outputs, inputs), tuple(pieces), 0, 0, 0)


@pytest.mark.parametrize("tokens", [1, 8])
def test_a_cost_is_the_sum_of_its_parts(tokens: int) -> None:
    rates, size = RATES[tokens], 64 * 96
    parts = {
        "": rates.number * 3 * (64 + 96),
        "unstructured:97%": rates.number * 3 * 160 + rates.row * 64 + rates.entry["columns"] * round(size * 0.03),
        "2:4": rates.number * 3 * 160 + rates.row * 64 + rates.entry["groups"] * size / 2,
    }
    for pattern, nanoseconds in parts.items():
        found = seconds(matrix(64, 96, 3, pattern), tokens)
        assert found == pytest.approx(1e-9 * (nanoseconds + rates.layer)), pattern
    bits = rates.row * 64 + rates.entry["bitmap"] * size / 2 + rates.weight["bitmap"] * size
    assert seconds(matrix(64, 96, 0, "unstructured:50%"), tokens) == pytest.approx(1e-9 * (bits + rates.layer))


def test_times_lie_on_the_line_through_one_and_eight_tokens() -> None:
    some = matrix(64, 96, 3, "2:4")
    one, eight = seconds(some, 1), seconds(some, 8)
    assert seconds(some, 4) == pytest.approx(one + (eight - one) * 3 / 7)
    assert one < eight


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_base_costs_its_weights_and_scales_in_the_operator(bits: int) -> None:
    quantized = base(quantize_blocks(np.ones((64, 96), np.float32), bits, 32))
    found = CompressedMatrix("dense", (64, 96), (quantized,), 0, 0, 0)
    own = RATES[1].base[bits] * 64 * 96 + RATES[1].scale * 64 * 3
    assert seconds(found) == pytest.approx(1e-9 * (own + RATES[1].layer))
    assert seconds(found, products=True) == pytest.approx(int4_seconds(64, 96))
    numbers = matrix(64, 96, 3, "").pieces
    both = CompressedMatrix("by hand", (64, 96), (quantized, *numbers), 0, 0, 0)
    of_pair = RATES[1].number * 3 * 160
    assert seconds(both) == pytest.approx(1e-9 * (own + of_pair + RATES[1].layer))
    assert seconds(both, products=True) == pytest.approx(int4_seconds(64, 96) + 1e-9 * (of_pair + RATES[1].layer))


def test_codes_that_the_operator_does_not_read_are_a_product_of_their_own() -> None:
    quantized = base(quantize_blocks(np.ones((64, 96), np.float32), 8, 32))
    found = CompressedMatrix("dense", (64, 96), (quantized,), 0, 0, 0)
    assert seconds(found) == pytest.approx(1e-9 * (RATES[1].product + RATES[1].dense * 64 * 96))


def test_a_train_costs_what_its_contracted_pair_does() -> None:
    weight = torch.randn(36, 48, generator=torch.Generator().manual_seed(1))
    train = train_within(weight, 4, 1500, "float16", 64)
    assert train is not None
    rank = train.train().ranks[train.shape.split]
    expected = RATES[1].layer + RATES[1].number * rank * (36 + 48)
    assert seconds(CompressedMatrix("tt", (36, 48), (train,), 0, 0, 0)) == pytest.approx(1e-9 * expected)


def measured() -> list[tuple[int, int, int, int, str, float]]:
    """Tokens, inputs, outputs, rank, pattern and microseconds of every layer of the page's tables."""
    found, shapes, tokens = [], [], 0
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"### (\d+) tokens?$|### One token$", line):
            tokens = int(heading[1] or 1)
        elif line.startswith("## "):
            tokens = 0
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| layer"):
            shapes = [tuple(map(int, re.findall(r"\d+", cell))) for cell in cells[1:]]
        layer = (
            re.match(r"(?:rank (\d+))?(?: \+ )?(?:([\d.]+) %|(2:4))?,", cells[0])
            if line.startswith("|") and tokens
            else None
        )
        if layer and (layer[1] or layer[2] or layer[3]):
            pattern = f"unstructured:{100 - float(layer[2]):g}%" if layer[2] else layer[3] or ""
            for (inputs, outputs), cell in zip(shapes, cells[1:], strict=True):
                us = float(cell.split()[0])
                found.append((tokens, inputs, outputs, int(layer[1] or 0), pattern, us))
    return found


def test_what_was_measured_is_what_the_rates_give() -> None:
    """The documentation's table, in which nothing is further than 35 % from the rates that it was fitted to."""
    rows = [row for row in measured() if row[1] == row[2] == 576]  # larger ones only take longer to draw
    assert len(rows) == 2 * 15
    ratios = []
    for tokens, inputs, outputs, rank, pattern, us in rows:
        given = 1e6 * seconds(matrix(outputs, inputs, rank, pattern), tokens)
        ratios.append(given / us)
        assert 0.65 < given / us < 1.35, (tokens, inputs, outputs, rank, pattern, us, given)
    assert abs(np.mean(np.abs(np.array(ratios) - 1))) < 0.1
