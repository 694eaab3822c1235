"""GGUF architecture `gemma3`: the text part of Gemma 3.

What the file leaves out is fixed in llama.cpp (src/llama-model.cpp, LLM_ARCH_GEMMA3): five sliding layers to one
global, RoPE base 10,000 in the sliding layers, and the query scale, which differs in the 62-layer model only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.checkpoint.architectures.table import LAYER_TENSORS, GgufArchitecture, Metadata

_PATTERN = 6
_LAYERS_OF_27B = 62


def _layer_types(metadata: Metadata, layers: int) -> list[str]:
    if not metadata.has("attention.sliding_window"):
        return ["full_attention"] * layers
    if metadata.has("attention.sliding_window_pattern"):
        pattern = metadata.get("attention.sliding_window_pattern")
        if isinstance(pattern, np.ndarray):
            return ["sliding_attention" if sliding else "full_attention" for sliding in pattern[:layers]]
    period = metadata.count("attention.sliding_window_pattern", _PATTERN)
    return ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(layers)]


def _config(metadata: Metadata) -> dict[str, Any]:
    layers = metadata.count("block_count")
    hidden = metadata.count("embedding_length")
    heads = metadata.count("attention.head_count")
    head_dim = metadata.count("attention.key_length", hidden // heads)
    config: dict[str, Any] = {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": hidden // heads if layers == _LAYERS_OF_27B else head_dim,
        "rope_local_base_freq": metadata.number("rope.freq_base_swa", 10000.0),
        "layer_types": _layer_types(metadata, layers),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }
    if metadata.has("final_logit_softcapping"):
        config["final_logit_softcapping"] = metadata.number("final_logit_softcapping")
    if metadata.has("attention.sliding_window"):
        config["sliding_window"] = metadata.count("attention.sliding_window")
    return config


ARCHITECTURE = GgufArchitecture(
    model_type="gemma3_text",
    hf_class="Gemma3ForCausalLM",
    layer_tensors={
        **LAYER_TENSORS,
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    norm_offset=1.0,
    extra_config=_config,
)
