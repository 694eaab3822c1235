from __future__ import annotations

import pytest

from edgekit.plan.activations import activation_memory, plugin_workspace
from edgekit.plan.machine import machine
from edgekit.plan.memory import ACTIVATIONS, BUFFERS, CACHE, CONTEXT, WEIGHTS, WORKSPACE, run_memory
from edgekit.plan.model_sizes import ModelSizes, model_sizes
from edgekit.plan.options import PlanOptions
from tests.plan.conftest import BOARD, CARD, OLD
from tests.plan.test_model_sizes import configuration

T6_SMALL = {
    "model_type": "t6",
    "hidden_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "head_dim": 48,
    "query_rank": 6,
    "key_rank": 2,
    "value_rank": 2,
    "intermediate_size": 512,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
}


def test_the_cache_of_keys_and_values(llama_2_7b: ModelSizes) -> None:
    # 32 layers, keys and values of 4096 numbers: 524,288 bytes a token in half precision.
    options = PlanOptions("fp16", context=1000, batch=3)
    assert run_memory(llama_2_7b, machine(BOARD), options).of(CACHE).value == 3 * 1000 * 524_288
    # Before TensorRT 10.15 it grows, from one buffer into another.
    assert run_memory(llama_2_7b, machine(OLD), options).of(CACHE).value == 2 * 3 * 1000 * 524_288
    single = run_memory(llama_2_7b, machine(CARD), PlanOptions("fp32", context=1000))
    assert single.of(CACHE).value == 1000 * 2 * 524_288


def test_factors_are_written_in_place() -> None:
    # (2 + 2)(6 + 48) numbers in each of 5 layers.
    memory = run_memory(model_sizes(T6_SMALL), machine(OLD), PlanOptions("fp16", context=2048, batch=2))
    assert memory.of(CACHE).value == 2 * 2048 * 5 * 216 * 2


def test_the_total_is_the_sum_and_what_is_available_excludes_the_system(smollm2: ModelSizes) -> None:
    memory = run_memory(smollm2, machine(BOARD), PlanOptions("fp16", context=4096))
    assert {item.name for item in memory.items} == {WEIGHTS, CACHE, ACTIVATIONS, WORKSPACE, BUFFERS, CONTEXT}
    assert memory.total.value == sum(item.bytes.value for item in memory.items)
    assert memory.total.low <= memory.total.value <= memory.total.high
    assert memory.available == 7_000_000_000
    assert memory.of(CONTEXT).value > run_memory(smollm2, machine(CARD), PlanOptions("fp16", 64)).of(CONTEXT).value


def test_weight_streaming_keeps_a_part(smollm2: ModelSizes) -> None:
    memory = run_memory(smollm2, machine(CARD), PlanOptions("fp16", context=64, resident_weight_bytes=1_000_000))
    assert memory.of(WEIGHTS).value == 1_000_000


def test_workspace_of_the_plugin_follows_its_source() -> None:
    # kernel.cuh: query rows, partial outputs and two states per split row and head, float32, each to 256 bytes.
    sizes = model_sizes(T6_SMALL)
    rows = max(1 * 8, 4 * 16)
    expected = sum(-(-4 * count // 256) * 256 for count in (100 * 6 * 48, rows * 6 * 48, rows * 6 * 2))
    assert plugin_workspace(sizes, batch=1, new=100, multiprocessors=16) == expected
    assert plugin_workspace(model_sizes(configuration("llama", {})), 1, 100, 16) == 0


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_activations_grow_with_every_size(smollm2: ModelSizes, dtype: str, in_place: bool) -> None:
    def bytes_of(batch: int, new: int, context: int) -> float:
        return activation_memory(smollm2, dtype, batch, new, context, in_place=in_place).value

    base = bytes_of(1, 128, 2048)
    assert bytes_of(4, 128, 2048) > base
    assert bytes_of(1, 512, 2048) > base
    assert bytes_of(1, 128, 8192) > base


#: What TensorRT-RTX 1.7 reported for float32 engines of two decoders with caches in place, built as with --grid of
#: scripts/check-plan:
#: model, tokens that the graph's buffers hold, sequences, most new tokens, most tokens in all, bytes.
FULL_PRECISION = [
    ("llama 576", 8192, 1, 64, 512, 14_732_800),
    ("llama 576", 8192, 1, 256, 512, 24_342_016),
    ("llama 576", 8192, 1, 128, 1024, 21_533_696),
    ("llama 576", 8192, 1, 512, 2048, 96_356_864),
    ("llama 576", 8192, 1, 128, 4096, 67_539_968),
    ("llama 576", 8192, 1, 512, 4096, 188_959_232),
    ("llama 576", 8192, 1, 128, 8000, 123_507_712),
    ("llama 576", 8192, 4, 128, 1024, 70_470_144),
    ("llama 576", 8192, 4, 512, 2048, 374_743_552),
    ("qwen3 1024", 8192, 1, 64, 512, 23_830_016),
    ("qwen3 1024", 8192, 1, 256, 512, 33_188_864),
    ("qwen3 1024", 8192, 1, 128, 1024, 43_923_456),
    ("qwen3 1024", 8192, 1, 512, 2048, 186_766_336),
    ("qwen3 1024", 8192, 1, 128, 4096, 146_163_200),
    ("qwen3 1024", 8192, 1, 512, 4096, 358_732_800),
    ("qwen3 1024", 8192, 1, 128, 8000, 276_088_320),
    ("qwen3 1024", 8192, 4, 128, 1024, 151_114_752),
    ("qwen3 1024", 8192, 4, 512, 2048, 722_027_520),
    ("llama 576", 2048, 1, 128, 2048, 25_564_160),
    ("llama 576", 2048, 1, 512, 2048, 88_099_328),
    ("llama 576", 2048, 1, 128, 2047, 25_559_040),
    ("llama 576", 2048, 4, 128, 2048, 102_255_104),
    ("llama 576", 4096, 1, 128, 4096, 50_205_696),
    ("llama 576", 4096, 1, 512, 4096, 188_959_232),
    ("qwen3 1024", 2048, 1, 128, 2048, 78_005_760),
    ("qwen3 1024", 2048, 1, 512, 2048, 186_766_336),
    ("qwen3 1024", 2048, 1, 128, 2047, 77_993_472),
    ("qwen3 1024", 2048, 4, 128, 2048, 287_445_504),
    ("qwen3 1024", 4096, 1, 128, 4096, 146_163_200),
    ("qwen3 1024", 4096, 1, 512, 4096, 358_732_800),
]
SHAPES = {
    "llama 576": {"model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3},
    "qwen3 1024": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}


@pytest.mark.parametrize(("name", "held", "batch", "new", "context", "reported"), FULL_PRECISION)
def test_activations_in_float32(name: str, held: int, batch: int, new: int, context: int, reported: int) -> None:
    config = {"intermediate_size": 4864, "num_hidden_layers": 2, "vocab_size": 4096, "max_position_embeddings": 8192}
    sizes = model_sizes({**config, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, **SHAPES[name]})
    found = activation_memory(sizes, "fp32", batch, new, context)
    assert found.low < reported < found.high
    if held > context >= 2048:
        assert found.value == pytest.approx(reported, rel=0.04)
