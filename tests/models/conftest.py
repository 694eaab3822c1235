"""Tiny random models of transformers, and their weights as a checkpoint in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from edgekit.layers.decoder import Decoder, Output


class Spec(NamedTuple):
    shape: tuple[int, ...]


@dataclass
class MemoryCheckpoint:
    """What loading needs of a checkpoint, over a dictionary."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    reads: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        return list(self.arrays)

    def spec(self, name: str, /) -> Spec:
        return Spec(self.arrays[name].shape)

    def array(self, name: str, /) -> np.ndarray:
        self.reads.append(name)
        return self.arrays[name]


COMMON: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 54,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
}

#: Per case the transformers classes' stem and the configuration.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-multi-head-tied-biases": (
        "Llama",
        {"num_key_value_heads": 6, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-multi-query": ("Llama", {"num_key_value_heads": 1, "head_dim": None, "hidden_size": 48}),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear-rope": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e3, "factor": 3.0}}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {"head_dim": None, "hidden_size": 60}),
    "qwen2-windows-tied": (
        "Qwen2",
        {
            "head_dim": None,
            "hidden_size": 60,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3": ("Qwen3", {}),
    "qwen3-windows-biases": (
        "Qwen3",
        {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {
            "tie_word_embeddings": True,
            "num_hidden_layers": 4,
            "sliding_window": 5,
            "sliding_window_pattern": 3,
            "query_pre_attn_scalar": 7,
            "rope_parameters": GEMMA_ROPE,
        },
    ),
    "gemma3-untied-biases-capped": (
        "Gemma3Text",
        {
            "attention_bias": True,
            "sliding_window": 3,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "final_logit_softcapping": 2.0,
        },
    ),
}


def published(case: str, seed: int = 0) -> transformers.PreTrainedModel:
    """A random model of transformers in float32, every parameter drawn (norms and biases too)."""
    stem, overrides = CASES[case]
    settings = {name: value for name, value in (COMMON | overrides).items() if value is not None}
    settings |= {name: None for name in ("sliding_window",) if name in overrides and overrides[name] is None}
    config = getattr(transformers, f"{stem}Config")(**settings, attn_implementation="eager")
    model = getattr(transformers, f"{stem.removesuffix('Text')}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread, centre = (0.3, float("Gemma" not in stem)) if name.endswith("norm.weight") else (0.25, 0.0)
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return model


def checkpoint_of(model: transformers.PreTrainedModel) -> MemoryCheckpoint:
    """The model's configuration and weights as `save_pretrained` would write them."""
    config = model.config.to_dict()
    tensors = model.state_dict()
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    return MemoryCheckpoint(config, {name: tensor.numpy() for name, tensor in tensors.items()})


Past = list[tuple[Tensor, Tensor]]


def empty_past(model: Decoder, batch: int) -> Past:
    dtype = model.model.embed_tokens.weight.dtype
    shapes = [
        (batch, layer.self_attn.shape.kv_heads, 0, layer.self_attn.shape.head_dim) for layer in model.model.layers
    ]
    return [(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for shape in shapes]


def run(model: Decoder, ids: Tensor, mask: Tensor | None = None, past: Past | None = None, keep: int = 0) -> Output:
    """One call; without a mask all tokens, cached ones included, are real."""
    past = empty_past(model, len(ids)) if past is None else past
    if mask is None:
        mask = torch.ones(len(ids), past[0][0].shape[2] + ids.shape[1], dtype=torch.int64)
    with torch.no_grad():
        output: Output = model(ids, mask, past, torch.tensor([keep]))
    return output


def greedy(model: Decoder, ids: Tensor, count: int) -> list[int]:
    """The next `count` tokens after ids [1, S], each the most likely one."""
    tokens: list[int] = []
    past = None
    for _ in range(count):
        output = run(model, ids, past=past, keep=1)
        past = output.present
        tokens.append(int(output.logits[0, -1].argmax()))
        ids = torch.tensor([tokens[-1:]])
    return tokens


@dataclass(frozen=True)
class Toolbox:
    """The functions of this file, for tests that get them as a fixture."""

    cases: dict[str, tuple[str, dict[str, Any]]]
    published: Callable[..., transformers.PreTrainedModel]
    checkpoint_of: Callable[..., MemoryCheckpoint]
    run: Callable[..., Output]
    greedy: Callable[..., list[int]]


@pytest.fixture(scope="session")
def tools() -> Toolbox:
    return Toolbox(CASES, published, checkpoint_of, run, greedy)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, scope="module")
