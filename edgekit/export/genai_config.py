"""genai_config.json: what onnxruntime-genai needs to know to run the `ort` form of a bundle as it is.

Source of the fields: the model builder of onnxruntime-genai 0.18 (models/builders/base.py, make_genai_config).
"""

from __future__ import annotations

from typing import Any

from edgekit import contract

GENAI_FILE = "genai_config.json"

#: Decoders that onnxruntime-genai 0.18 knows, by Hugging Face model_type, which is also its own name for them.
KNOWN_MODEL_TYPES = frozenset({"gemma3_text", "llama", "mistral", "qwen2", "qwen3"})

#: Search settings of generation_config.json that genai shares, with the defaults of its model builder.
_SAMPLING = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}


def genai_config(
    model: dict[str, Any],
    tokens: dict[str, Any],
    generation: dict[str, Any],
    *,
    max_context: int,
    graph_file: str = "model.onnx",
) -> dict[str, Any] | None:
    """The contents of genai_config.json for a bundle in the `ort` form; None for a model that genai does not know.

    Args:
        model: the manifest's "model": model_type, layers, heads, kv_heads, head_dim, hidden_size, vocab_size.
        tokens: the manifest's "tokens": ids of bos, eos (a list) and pad.
        generation: the checkpoint's generation_config.json; its sampling settings become genai's defaults.
        max_context: the most tokens that the graph serves, which genai allocates the cache for by default.
        graph_file: name of the ONNX file in the bundle.
    """
    if model["model_type"] not in KNOWN_MODEL_TYPES or not tokens["eos"]:
        return None
    eos = list(tokens["eos"])
    return {
        "model": {
            "type": model["model_type"],
            # Where there is no such token genai wants a number all the same; without add_bos it never uses it.
            "bos_token_id": tokens["bos"] if tokens["bos"] is not None else eos[0],
            "eos_token_id": eos[0] if len(eos) == 1 else eos,
            "pad_token_id": tokens["pad"] if tokens["pad"] is not None else eos[0],
            "context_length": max_context,
            "vocab_size": model["vocab_size"],
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": graph_file,
                "head_size": model["head_dim"],
                "hidden_size": model["hidden_size"],
                "num_attention_heads": model["heads"],
                "num_hidden_layers": model["layers"],
                "num_key_value_heads": model["kv_heads"],
                "inputs": {
                    "input_ids": contract.INPUT_IDS,
                    "attention_mask": contract.ATTENTION_MASK,
                    "past_key_names": contract.past_name("%d", contract.KEY),
                    "past_value_names": contract.past_name("%d", contract.VALUE),
                },
                "outputs": {
                    "logits": contract.LOGITS,
                    "present_key_names": contract.present_name("%d", contract.KEY),
                    "present_value_names": contract.present_name("%d", contract.VALUE),
                },
            },
        },
        "search": {
            **{key: generation.get(key, default) for key, default in _SAMPLING.items()},
            "max_length": max_context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            # Past and present are one buffer of max_length positions, as the `ort` form's attention needs.
            "past_present_share_buffer": True,
        },
    }
