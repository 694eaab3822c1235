"""GGUF architecture `qwen3`: dense Qwen 3 models, with a norm on each query and key head."""

from __future__ import annotations

from typing import Any

from edgekit.checkpoint.architectures.table import LAYER_TENSORS, GgufArchitecture, Metadata


def _config(metadata: Metadata) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "attention_bias": "blk.0.attn_q.bias" in metadata.header.tensors,
    }


ARCHITECTURE = GgufArchitecture(
    model_type="qwen3",
    hf_class="Qwen3ForCausalLM",
    layer_tensors={**LAYER_TENSORS, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
    extra_config=_config,
)
