"""Steps by hand: a model and a machine of round numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.plan import step_cost
from edgekit.plan.break_even import break_even, cache_pays
from edgekit.plan.machine import machine
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.step_cost import CACHE, COMPUTE, LAUNCHES, WEIGHTS, StepCost
from tests.plan.conftest import BOARD, OLD

READ = 2 * (6_738_415_616 - 32000 * 4096)
CACHED = 524_288


def cost(sizes: ModelSizes, *, in_place: bool | None = None, mode: str | None = None) -> StepCost:
    return StepCost(sizes, machine(BOARD, mode), "fp16", in_place=in_place)


def test_bytes_over_bandwidth_and_launches(llama_2_7b: ModelSizes) -> None:
    step = cost(llama_2_7b, in_place=True).step(1000)
    share = step_cost.BANDWIDTH_SHARE
    assert step.weights_s == pytest.approx(READ / (share * 100e9))
    assert step.cache_s == pytest.approx(1000 * CACHED / (share * 100e9))
    assert step.launch_s == pytest.approx(32 * step_cost.CYCLES_PER_LAYER / 1e9)
    assert step.seconds == pytest.approx(step.weights_s + step.cache_s + step.launch_s)
    assert step.limit == WEIGHTS


def test_a_growing_cache_moves_three_times(llama_2_7b: ModelSizes) -> None:
    growing = StepCost(llama_2_7b, machine(OLD), "fp16").step(1000)
    assert growing.cache_bytes == 3 * cost(llama_2_7b).step(1000).cache_bytes == 3 * 1000 * CACHED
    # 25,205 tokens of cache are as many bytes as the weights.
    assert cost(llama_2_7b).step(30_000).limit == CACHE


def test_a_prompt_is_arithmetic(llama_2_7b: ModelSizes) -> None:
    seconds = cost(llama_2_7b).prompt_seconds(512, 512)
    layers = 6_738_415_616 - 2 * 32000 * 4096
    # Each of 512 tokens sees 256 others on average: 2 h d multiply-adds for each and layer. One position gets logits.
    operations = 2 * (512 * (layers + 32 * 2 * 4096 * 256) + 32000 * 4096)
    expected = operations / (step_cost.COMPUTE_SHARE * 10e12) + 32 * step_cost.CYCLES_PER_LAYER / 1e9
    assert seconds == pytest.approx(expected, rel=1e-6)
    assert cost(llama_2_7b).step(512, 1, 512, logits=1).limit == COMPUTE
    in_pieces = cost(llama_2_7b).prompt_seconds(512, 64)
    assert in_pieces is not None
    assert in_pieces > seconds


def test_small_models_wait_for_launches(smollm2: ModelSizes) -> None:
    fast = replace(BOARD, memory_bandwidth_bytes_per_s=3e12, power_modes=BOARD.power_modes[:0])
    modes = (replace(BOARD.power_modes[1], memory_bandwidth_bytes_per_s=None),)
    step = StepCost(smollm2, machine(replace(fast, power_modes=modes)), "fp16").step(1)
    assert step.limit == LAUNCHES


def test_power_modes_scale_bandwidth_clock_and_peak(smollm2: ModelSizes) -> None:
    low, high = cost(smollm2, mode="10W").step(100, positions=64), cost(smollm2).step(100, positions=64)
    assert low.weights_s == pytest.approx(2 * high.weights_s)
    assert low.launch_s == pytest.approx(2 * (high.launch_s or 0))
    assert low.compute_s == pytest.approx(2 * (high.compute_s or 0))


def test_missing_facts_are_left_out_and_not_guessed(smollm2: ModelSizes) -> None:
    modes = (replace(BOARD.power_modes[1], gpu_clock_hz=None),)
    bare = machine(replace(BOARD, gpu_clock_hz=None, peak_ops_per_s={}, power_modes=modes))
    found = StepCost(smollm2, bare, "fp16")
    assert found.step(1).launch_s is None
    assert found.step(1).compute_s is None
    assert found.prompt_seconds(10, 10) is None


def test_break_even_where_arithmetic_limits(llama_2_7b: ModelSizes) -> None:
    # A slow machine: one position already takes the time of reading the weights.
    ridge = 2 * 6.6e9 / (step_cost.COMPUTE_SHARE * READ / (step_cost.BANDWIDTH_SHARE * 100e9))
    slow = machine(replace(BOARD, peak_ops_per_s={"fp16": ridge}))
    found = break_even(StepCost(llama_2_7b, slow, "fp16", in_place=True), 16)
    assert found.free_positions == 1
    by_length = {block.proposed: block for block in found.blocks}
    # Twice the arithmetic for one proposal: about twice the time, and at most two tokens.
    assert by_length[1].relative_cost == pytest.approx(2, rel=0.05)
    assert by_length[1].draft_budget == 0
    assert found.longest_paying == 0


def test_break_even_where_reading_limits(llama_2_7b: ModelSizes) -> None:
    found = break_even(cost(llama_2_7b), 16)
    # 0.42 of 10 Tops/s in the 147 ms that 13.2 GB take at 0.9 of 100 GB/s, over 13.2 G operations: 46.
    assert found.free_positions == 46
    for block in found.blocks:
        assert block.relative_cost == pytest.approx(1, abs=0.01)
        assert block.draft_budget == pytest.approx((1 - 0.8 ** (block.proposed + 1)) / 0.2 - 1, abs=0.05)
        assert block.needed_acceptance == pytest.approx(0, abs=0.01)
    # Beyond the free positions a step grows with its block until it costs more than the tokens it can give.
    assert found.free_positions < found.longest_paying


def test_needed_acceptance_solves_its_equation(llama_2_7b: ModelSizes) -> None:
    slow = machine(replace(BOARD, peak_ops_per_s={"fp16": 0.5e12}))
    blocks = [b for b in break_even(StepCost(llama_2_7b, slow, "fp16"), 16).blocks if b.needed_acceptance]
    assert blocks
    for block in blocks:
        p = block.needed_acceptance or 0
        assert (1 - p ** (block.proposed + 1)) / (1 - p) == pytest.approx(block.relative_cost)


def test_where_a_smaller_cache_pays(llama_2_7b: ModelSizes) -> None:
    model = cost(llama_2_7b, in_place=True)
    found = cache_pays(model)
    assert found.equals_weights == pytest.approx(READ / CACHED)
    at = round(found.half_pays_from)
    step = model.step(at)
    assert step.seconds / (step.seconds - step.cache_s / 2) == pytest.approx(1.1, rel=1e-3)


def test_llama_3_2_1b_as_the_literature_has_it() -> None:
    """KV 32,768 bytes a token in fp16, equal to 2.47 GB of fp16 weights at about 75,000 tokens."""
    from edgekit.plan.model_sizes import model_sizes

    sizes = model_sizes(
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
        }
    )
    assert 2 * sizes.cache_numbers == 32_768
    assert cache_pays(cost(sizes, in_place=True)).equals_weights == pytest.approx(75_000, rel=0.01)
