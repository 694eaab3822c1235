"""GGUF architecture `llama`: Llama 1 to 3, SmolLM2, Mistral."""

from __future__ import annotations

from typing import Any

from edgekit.checkpoint.architectures.table import LAYER_TENSORS, GgufArchitecture, Metadata


def _config(metadata: Metadata) -> dict[str, Any]:
    tensors = metadata.header.tensors
    config: dict[str, Any] = {
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
    }
    if metadata.has("attention.sliding_window"):
        config["sliding_window"] = metadata.count("attention.sliding_window")
    return config


ARCHITECTURE = GgufArchitecture(
    model_type="llama",
    hf_class="LlamaForCausalLM",
    layer_tensors=LAYER_TENSORS,
    permuted=frozenset({"attn_q", "attn_k"}),
    extra_config=_config,
)
