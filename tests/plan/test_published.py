"""The cost model beside published speeds: what its constants and its band rest on."""

from __future__ import annotations

import math

import pytest

from edgekit.plan.model_sizes import model_sizes
from edgekit.plan.published import CONFIGS, DECODING, OTHERS, PROMPTS, Figure, awq_bytes, ratio
from edgekit.plan.step_cost import FASTER, SLOWER


def name(figure: Figure) -> str:
    return f"{figure.model} {figure.device} {figure.tokens or 'decode'}"


@pytest.mark.parametrize("figure", [*DECODING, *PROMPTS], ids=name)
def test_published_times_lie_in_the_band(figure: Figure) -> None:
    assert 1 - FASTER <= ratio(figure) <= 1 + SLOWER


def test_the_constants_do_not_lean_to_one_side() -> None:
    for figures in (DECODING, PROMPTS):
        mean = sum(math.log(ratio(figure)) for figure in figures) / len(figures)
        assert abs(mean) < 0.06


def test_another_runtime_is_slower_and_not_used() -> None:
    assert all(ratio(figure) > 1 + SLOWER for figure in OTHERS)


def test_models_are_the_published_ones() -> None:
    """Parameters as the model cards give them, and the bytes that attained shares of bandwidth were computed with."""
    millions = {name: model_sizes(config).parameters / 1e6 for name, config in CONFIGS.items()}
    assert millions["Qwen3-0.6B"] == pytest.approx(596, abs=1)
    assert millions["Qwen3-1.7B"] == pytest.approx(1721, abs=1)
    assert millions["Qwen3-4B"] == pytest.approx(4022, abs=1)
    assert millions["Qwen3-8B"] == pytest.approx(8191, abs=1)
    assert millions["Qwen2.5-Coder-1.5B"] == pytest.approx(1544, abs=1)
    # 32.5 tokens/s are 77 % of 204.8 GB/s; 186.4 of the smallest are 49 %.
    assert 32.5 * awq_bytes(model_sizes(CONFIGS["Qwen3-8B"])) / 204.8e9 == pytest.approx(0.77, abs=0.01)
    assert 186.4 * awq_bytes(model_sizes(CONFIGS["Qwen3-0.6B"])) / 204.8e9 == pytest.approx(0.49, abs=0.01)
