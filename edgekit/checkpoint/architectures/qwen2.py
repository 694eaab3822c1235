"""GGUF architecture `qwen2`: Qwen 2 and 2.5."""

from __future__ import annotations

from typing import Any

from edgekit.checkpoint.architectures.table import LAYER_TENSORS, GgufArchitecture, Metadata


def _config(metadata: Metadata) -> dict[str, Any]:
    return {"hidden_act": "silu", "use_sliding_window": False}


ARCHITECTURE = GgufArchitecture(
    model_type="qwen2",
    hf_class="Qwen2ForCausalLM",
    layer_tensors=LAYER_TENSORS,
    extra_config=_config,
)
