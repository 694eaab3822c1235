"""Which matrices get how many bits, and whose integers they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit.checkpoint import Checkpoint
from edgekit.compress.quantizer import QuantizationSettings, QuantizedModel, carried_over, quantized_model
from edgekit.compress.units import EMBEDDING, HEAD, is_matrix
from edgekit.progress import SilentProgress

NAME = "model.layers.1.mlp.down_proj.weight"
QUERY = "model.layers.0.self_attn.q_proj.weight"


def matrices_of(checkpoint: Checkpoint) -> list[str]:
    return [name for name in checkpoint.names() if is_matrix(name, checkpoint.spec(name).shape)]


def quantize(checkpoint: Checkpoint, bits: int, **settings: Any) -> QuantizedModel:
    chosen = QuantizationSettings(bits, sequences=2, length=24, **settings)
    return quantized_model(checkpoint, matrices_of(checkpoint), chosen, SilentProgress())


def bits_of(result: QuantizedModel) -> dict[str, int]:
    return {name: matrix.bits for name, matrix in result.matrices.items()}


# ---- integers of the checkpoint


@pytest.mark.parametrize("name", [NAME, QUERY])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_integers_are_carried_over_exactly(tiny_gguf: Callable[[str], Checkpoint], kind: str, name: str) -> None:
    checkpoint = tiny_gguf(kind)
    bits = 8 if kind == "Q8_0" else 4
    carried = carried_over(checkpoint, name, QuantizationSettings(bits))
    assert carried is not None
    assert carried.bits == bits
    assert (carried.offsets is not None) == (kind == "Q4_1")
    np.testing.assert_allclose(carried.dequantized(), checkpoint.array(name), rtol=1e-6, atol=1e-7)


def test_what_is_left_of_a_minimum_is_at_most_half_a_step(tiny_gguf: Callable[[str], Checkpoint]) -> None:
    carried = carried_over(tiny_gguf("Q4_1"), NAME, QuantizationSettings(4))
    assert carried is not None
    assert carried.offsets is not None
    assert (np.abs(carried.offsets) <= 0.5001 * np.abs(carried.scales)).all()


def test_a_format_without_zero_points_holds_no_minimum(tiny_gguf: Callable[[str], Checkpoint]) -> None:
    settings = QuantizationSettings(4, symmetric=True)
    assert carried_over(tiny_gguf("Q4_1"), NAME, settings) is None
    carried = carried_over(tiny_gguf("Q4_0"), NAME, settings)
    assert carried is not None
    assert (carried.zero_points == 8).all()


@pytest.mark.parametrize("changes", [{"block": 64}, {"block": 16}, {"carry_over": False}])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_other_blocks_are_not_carried_over(
    tiny_gguf: Callable[[str], Checkpoint], kind: str, changes: dict[str, Any]
) -> None:
    settings = QuantizationSettings(8 if kind == "Q8_0" else 4)
    assert carried_over(tiny_gguf(kind), NAME, settings) is not None
    assert carried_over(tiny_gguf(kind), NAME, dataclasses.replace(settings, **changes)) is None


def test_other_bits_are_not_carried_over(
    tiny_gguf: Callable[[str], Checkpoint], tiny: Callable[[str], Checkpoint]
) -> None:
    assert carried_over(tiny_gguf("Q4_0"), NAME, QuantizationSettings(8)) is None
    assert carried_over(tiny_gguf("Q8_0"), NAME, QuantizationSettings(4)) is not None  # it may stay at 8 bits
    assert carried_over(tiny("llama"), NAME, QuantizationSettings(4)) is None


def test_a_checkpoint_of_4_bits_needs_no_calibration(
    tiny_gguf: Callable[[str], Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.compress.calibrated.model_from_checkpoint", None)
    checkpoint = tiny_gguf("Q4_0")
    result = quantize(checkpoint, 4)
    expected = {name: 8 if name == EMBEDDING else 4 for name in matrices_of(checkpoint)}
    assert bits_of(result) == expected
    assert result.costs == {}
    assert result.origin[NAME] == "carried over from Q4_0"
    assert result.origin[EMBEDDING].startswith("rounded to 8 bits")
    assert result.record()["calibration"] is None
    assert result.record()["allowed_cost_nats"] is None


def test_a_checkpoint_of_8_bits_that_stays_at_8(tiny_gguf: Callable[[str], Checkpoint]) -> None:
    result = quantize(tiny_gguf("Q8_0"), 8)
    assert set(result.origin.values()) == {"carried over from Q8_0"}
    assert set(bits_of(result).values()) == {8}


# ---- bits


def test_8_bits_without_calibration(tiny: Callable[[str], Checkpoint]) -> None:
    checkpoint = tiny("llama-untied")
    result = quantize(checkpoint, 8)
    assert set(result.matrices) == set(matrices_of(checkpoint))
    assert result.costs == {}
    for name, matrix in result.matrices.items():
        weight = checkpoint.array(name)
        assert np.abs(matrix.dequantized() - weight).max() < 0.01 * np.abs(weight).max()


def test_the_head_stays_at_8_bits_unless_told_otherwise(tiny: Callable[[str], Checkpoint]) -> None:
    checkpoint = tiny("llama-untied")
    result = quantize(checkpoint, 4, allowed_cost=1e9)
    assert {name for name, bits in bits_of(result).items() if bits == 8} == {HEAD, EMBEDDING}
    assert "lm_head" not in result.costs
    assert len(result.costs) == 2 * 4
    assert all(cost > 0 for cost in result.costs.values())
    allowed = quantize(checkpoint, 4, allowed_cost=1e9, keep_8bit=("*.down_proj",))
    down = {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1)}
    assert {name for name, bits in bits_of(allowed).items() if bits == 8} == {EMBEDDING} | down
    assert bits_of(allowed)[HEAD] == 4


def test_no_cost_allowed_keeps_all_at_8_bits(tiny: Callable[[str], Checkpoint]) -> None:
    result = quantize(tiny("llama"), 4, allowed_cost=0.0, keep_8bit=())
    assert set(bits_of(result).values()) == {8}
    assert "lm_head" in result.costs  # it was tried
    assert result.record()["units_at_8_bits"] == sorted(result.costs)


def test_matrices_of_one_unit_have_the_same_bits(tiny: Callable[[str], Checkpoint]) -> None:
    checkpoint = tiny("llama")
    free = quantize(checkpoint, 4, allowed_cost=1e9)
    result = quantize(checkpoint, 4, allowed_cost=sum(free.costs.values()) / 2)
    bits = bits_of(result)
    assert {4, 8} == {bits[name] for name in bits if name != EMBEDDING}
    for layer in (0, 1):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        assert len({bits[f"{attention}{part}_proj.weight"] for part in "qkv"}) == 1
        assert bits[f"{mlp}gate_proj.weight"] == bits[f"{mlp}up_proj.weight"]


def test_stacked_matrices(tiny: Callable[[str], Checkpoint]) -> None:
    result = quantize(tiny("llama"), 8)
    names = tuple(f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv")
    stacked = result.matrix(names)
    assert stacked is not None
    assert np.array_equal(stacked.dequantized(), np.concatenate([result.matrices[n].dequantized() for n in names]))
    assert result.matrix((*names, "model.norm.weight")) is None
    four = quantize(tiny("llama"), 4, allowed_cost=1e9).matrices[names[1]]
    result.matrices[names[1]] = four
    assert result.matrix(names) is None
    assert result.matrix((names[1],)) is four


def test_the_record(tiny: Callable[[str], Checkpoint]) -> None:
    result = quantize(tiny("llama"), 4, allowed_cost=1e9)
    record = result.record()
    assert (record["bits"], record["block_size"], record["symmetric"]) == (4, 32, False)
    assert record["units_at_8_bits"] == ["lm_head"]
    assert record["allowed_cost_nats"] == 1e9
    assert set(record["expected_cost_nats"]) == set(result.costs)
    assert record["origin"] == {"rounded to 4 bits by GPTQ": 14, "rounded to 8 bits, scales by least squares": 1}
    assert record["weight_bytes"] == sum(matrix.nbytes() for matrix in result.matrices.values())
    assert record["calibration"]["tokens"] == 48
