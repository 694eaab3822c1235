"""Allocation against exhaustive search."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from edgekit.compress.saten.allocation import Option, allocated, hull, option
from edgekit.compress.saten.decompose import compress_matrix
from edgekit.errors import ExportError
from tests.compress.saten.matrices import anisotropic, toy


def random_options(seed: int, matrices: int = 4, each: int = 5) -> dict[str, list[Option]]:
    rng = np.random.default_rng(seed)
    return {
        f"layer {m}": [
            Option(f"{m}.{i}", int(rng.integers(10, 100)), float(rng.random() * 10 ** rng.uniform(-2, 0)))
            for i in range(each)
        ]
        for m in range(matrices)
    }


def best(options: dict[str, list[Option]], budget: int) -> float:
    sums = [
        sum(option.loss for option in choice)
        for choice in product(*options.values())
        if sum(option.nbytes for option in choice) <= budget
    ]
    return min(sums)


@pytest.mark.parametrize("seed", range(8))
def test_near_the_best_of_all_choices(seed: int) -> None:
    options = random_options(seed)
    least = sum(min(one.nbytes for one in choices) for choices in options.values())
    step = max(one.loss - two.loss for choices in options.values() for one, two in pairwise(hull(choices)))
    for budget in range(least, 400, 13):
        chosen = allocated(options, budget)
        assert chosen.keys() == options.keys()
        assert all(option in options[name] for name, option in chosen.items())
        assert sum(option.nbytes for option in chosen.values()) <= budget
        loss, optimum = sum(option.loss for option in chosen.values()), best(options, budget)
        assert optimum <= loss + 1e-12
        assert loss <= optimum + step


@pytest.mark.parametrize("price", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_budgets_that_a_price_per_byte_uses_up(seed: int, price: float) -> None:
    """Everett's theorem: minimising loss + price · bytes matrix by matrix is optimal for the bytes it takes."""
    options = random_options(seed)
    choice = [min(choices, key=lambda one: one.loss + price * one.nbytes) for choices in options.values()]
    chosen = allocated(options, sum(one.nbytes for one in choice))
    assert sum(one.loss for one in chosen.values()) == pytest.approx(sum(one.loss for one in choice))


def test_all_that_helps_is_bought_when_bytes_do_not_matter() -> None:
    options = random_options(3)
    chosen = allocated(options, 10**9)
    assert {n: o.loss for n, o in chosen.items()} == {n: min(c.loss for c in options[n]) for n in options}


def test_bytes_go_where_they_help_most() -> None:
    options = {
        "dull": [Option("small", 10, 1.0), Option("dense at 4 bits", 20, 0.9)],
        "keen": [Option("small", 10, 1.0), Option("dense at 4 bits", 20, 0.1)],
    }
    chosen = allocated(options, 30)
    assert {name: option.name for name, option in chosen.items()} == {"dull": "small", "keen": "dense at 4 bits"}


def test_what_is_left_buys_options_off_the_hull() -> None:
    options = {"only": [Option("a", 10, 1.0), Option("b", 19, 0.9), Option("c", 20, 0.1)]}
    assert [option.name for option in hull(options["only"])] == ["a", "c"]
    assert allocated(options, 19)["only"].name == "b"


def test_options_of_compressed_matrices() -> None:
    """The matrix whose outputs matter a thousand times more gets the bytes; dense int4 is what it takes."""
    weight = toy(32, 64)
    metrics = {
        "keen": anisotropic(weight),
        "dull": replace(anisotropic(weight), outputs=torch.full((32,), 1e-3).double()),
    }
    tries = [("dense", 4.7), ("dense", 2.7), ("svd-aware", 2.5)]
    options = {
        name: [option(compress_matrix(weight, method, bits_per_weight=bits, measured=m)) for method, bits in tries]
        for name, m in metrics.items()
    }
    chosen = allocated(options, int((4.7 + 2.7) * 32 * 64 / 8))
    assert {name: found.name for name, found in chosen.items()} == {
        "keen": "dense at 4.62 bits",
        "dull": "dense at 2.56 bits",
    }


def test_hull_leaves_out_what_is_dominated() -> None:
    given = [Option("a", 10, 1.0), Option("worse", 15, 1.2), Option("b", 20, 0.4), Option("above", 25, 0.39)]
    given += [Option("c", 30, 0.1), Option("same size", 30, 0.2), Option("above too", 18, 0.9)]
    assert [option.name for option in hull(given)] == ["a", "b", "c"]


def test_refusals() -> None:
    options = random_options(0)
    least = sum(min(one.nbytes for one in choices) for choices in options.values())
    with pytest.raises(ExportError, match=f"take {least} bytes(.|\n)*{least - 1} were"):
        allocated(options, least - 1)
    with pytest.raises(ExportError, match="none at all has none"):
        allocated({**options, "none at all": []}, 10**6)
