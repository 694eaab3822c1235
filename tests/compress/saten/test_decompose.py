"""Methods under one budget: what they take, what they leave, how they rank, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file

from edgekit.compress.saten.compressed import CompressedMatrix, compressed_from
from edgekit.compress.saten.decompose import compress_matrix
from edgekit.compress.saten.request import Settings, method_names
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.errors import ExportError
from tests.compress.saten.matrices import anisotropic, toy

ROWS, INPUTS = 96, 128
Make = Callable[..., CompressedMatrix]


@pytest.fixture(scope="module")
def make() -> Make:
    """make(method, bits_per_weight, **settings): the toy matrix compressed; made once each."""
    weight = toy(ROWS, INPUTS)
    measured = anisotropic(weight)
    made: dict[str, CompressedMatrix] = {}

    def compress(method: str, bits: float, **settings: object) -> CompressedMatrix:
        key = f"{method} {bits} {settings}"
        if key not in made:
            chosen = Settings(**settings)  # type: ignore[arg-type]
            made[key] = compress_matrix(weight, method, bits_per_weight=bits, measured=measured, settings=chosen)
        return made[key]

    return compress


def test_methods() -> None:
    expected = {"tt", "svd", "svd-aware", "saten-faithful", "saten", "saten-augmented", "dense"}
    assert expected <= set(method_names())


@pytest.mark.parametrize("bits", [4.0, 3.0])
@pytest.mark.parametrize("method", method_names())
def test_within_the_budget_to_the_byte(method: str, bits: float, make: Make, tmp_path: Path) -> None:
    found = make(method, bits)
    assert found.nbytes <= bits * ROWS * INPUTS / 8
    assert found.bits_per_weight == pytest.approx(8 * found.nbytes / (ROWS * INPUTS))
    arrays = found.arrays()
    save_file(arrays, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert len(content) - 8 - header == found.nbytes  # nothing but the arrays themselves
    back = compressed_from(json.loads(json.dumps(found.record())), load_file(tmp_path / "m.safetensors"))
    assert (back.reconstruct() == found.reconstruct()).all()
    assert back.record() == found.record()
    assert back.nbytes == found.nbytes


@pytest.mark.parametrize("method", method_names())
def test_errors_are_those_of_what_is_stored(method: str, make: Make) -> None:
    found, weight = make(method, 4.0), toy(ROWS, INPUTS)
    error = weight - torch.from_numpy(found.reconstruct()).double()
    assert found.plain_error == pytest.approx(float(error.norm() / weight.norm()), rel=1e-4)
    measured = anisotropic(weight)
    square, whole = (float(((e @ measured.moments) * e).sum(1) @ measured.outputs) for e in (error, weight))
    assert found.weighted_error == pytest.approx((square / whole) ** 0.5, rel=1e-4)
    assert found.loss == pytest.approx(square / 2, rel=1e-4)


@pytest.mark.parametrize("method", ["tt", "svd", "svd-aware", "saten", "saten-augmented", "dense"])
def test_more_bytes_mean_less_error(method: str, make: Make) -> None:
    error = "plain_error" if method in ("tt", "svd") else "weighted_error"  # what the method makes small
    assert getattr(make(method, 6.0), error) < getattr(make(method, 3.0), error)


@pytest.mark.parametrize("bits", [4.0, 3.0])
def test_ranking_at_equal_bytes(bits: float, make: Make) -> None:
    """Ours beats the published form, the train and both decompositions; the corrected base beats the base alone."""
    ours = make("saten", bits).weighted_error
    for other in ("saten-faithful", "tt", "svd", "svd-aware"):
        assert ours < 0.8 * make(other, bits).weighted_error
    assert make("saten-augmented", bits).weighted_error < 0.9 * make("dense", bits).weighted_error


def test_each_refinement_of_saten_counts() -> None:
    """Same rank, same nonzeros, nothing quantised: once, alternating, and alternating in the metric."""
    weight = toy(ROWS, INPUTS)
    measured = anisotropic(weight)
    common = {"factors": "float16", "values": "float16", "sparsity": sparsity_named("unstructured:95%")}

    def error(rounds: int, metric_of_fit: object) -> float:
        settings = Settings(rounds=rounds, **common)  # type: ignore[arg-type]
        found = compress_matrix(
            weight,
            "saten",
            bits_per_weight=6,
            measured=metric_of_fit,
            settings=settings,  # type: ignore[arg-type]
        )
        return measured.squared(weight - torch.from_numpy(found.reconstruct()))

    once, alternating, aware = error(1, None), error(6, None), error(6, measured)
    assert alternating < 0.99**2 * once
    assert aware < 0.8**2 * alternating


@pytest.mark.parametrize("spelling", ["2:4", "unstructured:90%", "row:95%", "block:4x16:95%", "none"])
@pytest.mark.parametrize("method", ["saten", "saten-augmented", "saten-faithful"])
def test_patterns_that_are_asked_for(method: str, spelling: str, make: Make) -> None:
    asked = sparsity_named(spelling)
    found = make(method, 12.0, sparsity=asked, rounds=1)
    parts = [piece for piece in found.pieces if piece.record()["kind"] == "sparse"]
    if spelling == "none":
        assert not parts
        return
    mask = parts[0].positions.mask()  # type: ignore[attr-defined]
    expected = asked.mask(torch.ones(ROWS, INPUTS))
    assert mask.sum() == expected.sum()
    if spelling == "2:4":
        assert (mask.reshape(ROWS, INPUTS // 4, 4).sum(-1) == 2).all()


def test_a_train_may_take_the_place_of_the_pair(make: Make) -> None:
    for method in ("saten", "saten-augmented"):
        found = make(method, 5.0, order=3, rounds=1, base_bits=(3,), sparsity=sparsity_named("unstructured:99%"))
        kinds = [piece.record()["kind"] for piece in found.pieces]
        assert "train" in kinds
        assert "pair" not in kinds


def test_the_weights_given_are_left_alone() -> None:
    weight = toy(32, 64).float()
    before = weight.clone()
    for method in method_names():
        compress_matrix(weight, method, bits_per_weight=6, settings=Settings(rounds=1))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("method", method_names())
def test_a_matrix_of_zeros(method: str) -> None:
    found = compress_matrix(torch.zeros(32, 64), method, bits_per_weight=6, settings=Settings(rounds=1))
    assert not found.reconstruct().any()
    assert found.weighted_error == found.plain_error == 0


@pytest.mark.parametrize("method", method_names())
def test_too_small_a_budget(method: str) -> None:
    with pytest.raises(ExportError, match=r"at least \d+ bytes(.|\n)*5 bytes were allowed") as refusal:
        compress_matrix(toy(32, 64), method, budget=5)
    least = int(refusal.value.rule.split("at least ")[1].split()[0])
    with pytest.raises(ExportError, match="at least"):
        compress_matrix(toy(32, 64), method, budget=least - 1)
    assert compress_matrix(toy(32, 64), method, budget=least, settings=Settings(rounds=1)).nbytes <= least


def test_the_sparse_part_alone_may_be_too_large() -> None:
    for method in ("saten", "saten-augmented", "saten-faithful"):
        with pytest.raises(ExportError, match="at least"):
            compress_matrix(toy(32, 64), method, bits_per_weight=3, settings=Settings(sparsity=sparsity_named("2:4")))


def test_refusals() -> None:
    weight = toy(32, 64)
    with pytest.raises(ExportError, match="saten-augmented(.|\n)*'cp'"):
        compress_matrix(weight, "cp", budget=1000)
    with pytest.raises(ExportError, match="both or neither"):
        compress_matrix(weight, "svd")
    with pytest.raises(ExportError, match="both or neither"):
        compress_matrix(weight, "svd", budget=1, bits_per_weight=1)
    with pytest.raises(ExportError, match=r"\(64,\)"):
        compress_matrix(weight[0], "svd", budget=1000)
    with pytest.raises(ExportError, match="finite"):
        compress_matrix(weight / 0, "svd", budget=1000)
    with pytest.raises(ExportError, match="'int7'"):
        compress_matrix(weight, "svd", budget=1000, settings=Settings(factors="int7"))
