"""Published decoding and prompt speeds that the constants of `step_cost` rest on, and what the model makes of them.

Decoding: https://nvidia.github.io/TensorRT-Edge-LLM/0.9.0/user_guide/performance/performance-benchmarks.html, "Runtime
Performance Dashboard", batch 1, prompts of about 60 tokens, 4-bit weights (AWQ, groups of 128) with a half-precision
head, caches in place, JetPack 7.2. Power modes are not stated there. Of the Orin Nano's modes only 15W agrees with the
other devices: with the memory clock of MAXN_SUPER its figures would be 0.6 of what the same model gives for an Orin NX
of equal bandwidth. llama.cpp: https://www.smolhub.com/posts/jetson-nano-super-benchmark-non-reasoning/ (25W) and
https://github.com/paiml/realizar/issues/120.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.device.profile import DeviceProfile, device_profile
from edgekit.plan.machine import machine
from edgekit.plan.model_sizes import EMBEDDING, HEAD, ModelSizes, model_sizes
from edgekit.plan.step_cost import StepCost

EDGE_LLM, LLAMA_CPP = "TensorRT-Edge-LLM 0.9.0", "llama.cpp"
ORIN_NANO, ORIN_NX, AGX_ORIN, THOR = (
    "jetson-orin-nano-8gb",
    "jetson-orin-nx-16gb",
    "jetson-agx-orin-64gb",
    "jetson-thor-t5000",
)
#: Tokens in the cache while the published answers grew: prompts of 60 tokens and answers of a few hundred.
DEPTH = 300
#: Bytes of a 4-bit weight with a float16 scale for each 128 inputs.
AWQ = 0.5 + 2 / 128

_QWEN3 = {"model_type": "qwen3", "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960}


def _qwen3(layers: int, hidden: int, heads: int, inner: int, tied: bool) -> dict[str, Any]:
    """https://huggingface.co/Qwen: config.json of Qwen3-0.6B, 1.7B, 4B and 8B."""
    return {
        **_QWEN3,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "intermediate_size": inner,
        "tie_word_embeddings": tied,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": _qwen3(28, 1024, 16, 3072, True),
    "Qwen3-1.7B": _qwen3(28, 2048, 16, 6144, True),
    "Qwen3-4B": _qwen3(36, 2560, 32, 9728, True),
    "Qwen3-8B": _qwen3(36, 4096, 32, 12288, False),
    "SmolLM2-135M": {
        "model_type": "llama",
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-Coder-1.5B": {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
        mode: the power mode it is compared with; None for the fastest.
        tokens: of the prompt, for a time to read it; 0 for a decoding speed.
        published: tokens/s, or seconds for a prompt.
        file_bytes: of the weights file, where types are mixed within it; 0 to count AWQ weights and a half-precision
            head.
    """

    runtime: str
    model: str
    device: str
    mode: str | None
    published: float
    tokens: int = 0
    file_bytes: float = 0


def _decoding(device: str, mode: str | None, **speeds: float) -> list[Figure]:
    names = {"b06": "Qwen3-0.6B", "b17": "Qwen3-1.7B", "b4": "Qwen3-4B", "b8": "Qwen3-8B"}
    return [Figure(EDGE_LLM, names[key], device, mode, speed) for key, speed in speeds.items()]


#: On Thor the 0.6B and 1.7B are published as NVFP4 only, which is no integer format: they are left out.
DECODING = [
    *_decoding(ORIN_NANO, "15W", b06=72.8, b17=37.4),
    *_decoding(ORIN_NX, None, b06=117.4, b17=60.4, b4=31.6, b8=19.0),
    *_decoding(AGX_ORIN, None, b06=186.4, b17=98.6, b4=53.1, b8=32.5),
    *_decoding(THOR, None, b4=79.6, b8=49.3),
]

#: Prompts of the vision models Qwen3-VL-2B, 4B and 8B, whose language models are Qwen3-1.7B, 4B and 8B.
PROMPTS = [
    Figure(EDGE_LLM, "Qwen3-1.7B", ORIN_NANO, "15W", 0.1909, 292),
    Figure(EDGE_LLM, "Qwen3-1.7B", ORIN_NX, None, 0.1031, 292),
    Figure(EDGE_LLM, "Qwen3-4B", ORIN_NX, None, 0.2446, 292),
    Figure(EDGE_LLM, "Qwen3-8B", ORIN_NX, None, 0.4621, 292),
    Figure(EDGE_LLM, "Qwen3-1.7B", AGX_ORIN, None, 0.0500, 292),
    Figure(EDGE_LLM, "Qwen3-4B", AGX_ORIN, None, 0.1237, 292),
    Figure(EDGE_LLM, "Qwen3-8B", AGX_ORIN, None, 0.2251, 292),
]

#: Another runtime, with kernels that start one by one: shown, not used.
OTHERS = [
    Figure(LLAMA_CPP, "SmolLM2-135M", ORIN_NANO, "25W", 165.0, file_bytes=101e6),
    Figure(LLAMA_CPP, "Qwen2.5-Coder-1.5B", ORIN_NANO, "25W", 32.1, file_bytes=1.12e9),
]


def predicted(figure: Figure, device: DeviceProfile | None = None) -> float:
    """What the cost model gives for a figure, in its unit."""
    sizes = model_sizes(CONFIGS[figure.model])
    on = machine(device or device_profile(figure.device), figure.mode)
    weights = figure.file_bytes or awq_bytes(sizes)
    cost = StepCost(sizes, on, "int4", in_place=True, weights=weights)
    if figure.tokens:
        seconds = cost.prompt_seconds(figure.tokens, figure.tokens)
        assert seconds is not None
        return seconds
    return 1 / cost.step(DEPTH).seconds


def ratio(figure: Figure) -> float:
    """Published time over predicted time: above 1 where it is slower than predicted."""
    return figure.published / predicted(figure) if figure.tokens else predicted(figure) / figure.published


def awq_bytes(sizes: ModelSizes) -> float:
    """Bytes per step of 4-bit layers and a half-precision head."""
    layers = sum(m.numbers for m in sizes.matrices if m.role not in (EMBEDDING, HEAD))
    return layers * AWQ + 2 * (sizes.vocab_size * sizes.hidden_size + sizes.unquantised)
