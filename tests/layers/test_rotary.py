"""Rotary tables against transformers' frequencies, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from edgekit.errors import ModelError
from edgekit.layers.rotary import Rotary, RotaryTables, rotary_from_config, rotary_tables

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def frequencies(parameters: dict[str, Any], head_dim: int = 64) -> torch.Tensor:
    """Our inverse frequencies, float64, read off the angles of a position small enough not to wrap."""
    rotary = rotary_from_config(parameters, 10_000.0, 131_072)
    cos, sin = rotary_tables(head_dim, 2, rotary.theta, rotary.scaling)
    return torch.atan2(sin[1].double(), cos[1].double())


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, id="linear"),
        pytest.param(LLAMA3, id="llama3"),
        pytest.param(dict(LLAMA3, factor=8.0, original_max_position_embeddings=300), id="llama3-short"),
    ],
)
def test_scaled_frequencies_equal_transformers(parameters: dict[str, Any]) -> None:
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=2, max_position_embeddings=131_072, rope_parameters=dict(parameters)
    )
    expected, attention_factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    assert attention_factor == 1.0
    torch.testing.assert_close(frequencies(parameters), expected.double(), rtol=3e-7, atol=0)


def test_llama3_keeps_short_divides_long_and_ramps_between() -> None:
    plain = frequencies({"rope_theta": 500_000.0})
    ratio = frequencies(LLAMA3) / plain
    turns = 8192 * plain / (2 * torch.pi)
    assert ((ratio - 1).abs() < 1e-6)[turns > 4].all()
    assert ((ratio - 1 / 32).abs() < 1e-6)[turns < 1].all()
    between = ratio[(turns > 1) & (turns < 4)]
    assert len(between) > 0
    assert ((between > 1 / 32) & (between < 1)).all()


def test_default_tables_are_float64_angles_rounded_once() -> None:
    cos, sin = rotary_tables(6, 9000, 10_000.0)
    assert cos.shape == sin.shape == (9000, 3)
    assert cos.dtype == sin.dtype == torch.float32
    angle = torch.tensor(8999 * 10_000.0 ** (-2 / 6), dtype=torch.float64)
    assert abs(cos[8999, 1].item() - angle.cos().item()) < 6e-8
    assert abs(sin[8999, 1].item() - angle.sin().item()) < 6e-8


def test_factors_divide_each_frequency() -> None:
    plain = frequencies({"rope_theta": 1e4}, 6)
    scaled = frequencies({"rope_type": "factors", "factors": [1.0, 2.0, 8.0], "rope_theta": 1e4}, 6)
    torch.testing.assert_close(plain / scaled, torch.tensor([1.0, 2.0, 8.0], dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_older_name_of_the_kind_is_read() -> None:
    parameters = {"type": "linear", "factor": 2.0, "rope_theta": 1e4}
    torch.testing.assert_close(frequencies(parameters) * 2, frequencies({"rope_theta": 1e4}), rtol=1e-6, atol=0)


def test_default_theta_stands_in() -> None:
    assert rotary_from_config({}, 123.0, 64) == Rotary(123.0, None)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rope_type": "yarn", "factor": 4.0}, ["'yarn'", "default, factors, linear, llama3"]),
        ({"rope_type": "linear"}, ["'linear'", "'factor'"]),
        ({"rope_type": "linear", "factor": None}, ["'linear'"]),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}, ["'llama3'", "'high_freq_factor'"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor = 0.5"]),
        ({"rope_theta": "big"}, ["needs its numbers", "'big'"]),
    ],
)
def test_refusals_name_the_fact(parameters: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        rotary_from_config(parameters, 10_000.0, 64)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert error.value.next_step


def test_a_wrong_number_of_factors_is_refused() -> None:
    rotary = rotary_from_config({"rope_type": "factors", "factors": [1.0, 2.0]}, 10_000.0, 64)
    with pytest.raises(ModelError, match="2 factors for 3 frequencies"):
        rotary_tables(6, 4, rotary.theta, rotary.scaling)


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_theta": -1.0},
        {"rope_type": "linear", "factor": 0.0},
        dict(LLAMA3, factor=0.0),
        {"rope_type": "factors", "factors": [1.0, -2.0, 1.0]},
    ],
)
def test_numbers_that_give_no_frequencies_are_refused(parameters: dict[str, Any]) -> None:
    rotary = rotary_from_config(parameters, 10_000.0, 64)
    with pytest.raises(ModelError, match="finite and positive"):
        rotary_tables(6, 4, rotary.theta, rotary.scaling)


def test_tables_on_the_meta_device_can_still_be_computed() -> None:
    rotary = rotary_from_config(LLAMA3, 10_000.0, 64)
    with torch.device("meta"):
        tables = RotaryTables(rotary, 8, 5)
        cos, sin = tables.compute()
    assert tables.cos.is_meta
    assert tables.sin.is_meta
    assert not tables.state_dict()
    expected = rotary_tables(8, 5, rotary.theta, rotary.scaling)
    assert torch.equal(cos, expected[0])
    assert torch.equal(sin, expected[1])
