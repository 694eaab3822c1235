"""Names, axes and element types of a decoder graph's inputs and outputs.

Export writes them, build reads them, the runtime binds them: this is the only place that spells them. The names are
those of Hugging Face exports, so that a stock onnxruntime-genai can bind the same graph.

Shapes: B batch, S new tokens, P past tokens, T = P + S, C cache capacity, K kept positions, V vocabulary,
G key/value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
#: How many positions get logits, counted from the end; 0 for all. onnxruntime-genai knows it by this name.
LOGITS_TO_KEEP = "num_logits_to_keep"
LOGITS = "logits"

AXIS_BATCH = "batch_size"
AXIS_SEQUENCE = "sequence_length"
AXIS_TOTAL = "total_sequence_length"
AXIS_PAST = "past_sequence_length"
AXIS_KEPT = "kept_sequence_length"

#: The form whose cache grows by concatenation: present [B, G, P+S, D] is a new tensor.
CACHE_CONCAT = "concat"
#: The form whose past and present are one buffer [B, G, C, D], written in place.
CACHE_SHARED = "shared"

FORM_PORTABLE = "portable"
FORM_ORT = "ort"


def past_key(layer: int) -> str:
    """Input: rotated keys of the earlier tokens, [B, G, P or C, D]."""
    return f"past_key_values.{layer}.key"


def past_value(layer: int) -> str:
    """Input: values of the earlier tokens, [B, G, P or C, D]."""
    return f"past_key_values.{layer}.value"


def present_key(layer: int) -> str:
    """Output: rotated keys including the new tokens, [B, G, T or C, D]."""
    return f"present.{layer}.key"


def present_value(layer: int) -> str:
    """Output: values including the new tokens, [B, G, T or C, D]."""
    return f"present.{layer}.value"


def hidden_tap(index: int) -> str:
    """Internal tensor: the residual stream after `index` layers (0 is the embedding), [B, S, hidden]."""
    return f"hidden.{index}"


@dataclass(frozen=True)
class TensorSignature:
    """One graph input or output: its name, ONNX element type in lower case ("int64", "float32") and symbolic shape."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


def decoder_inputs(layers: int, kv_heads: int, head_dim: int, cache_dtype: str) -> list[TensorSignature]:
    """Inputs of a decoder in graph order."""
    cache = (AXIS_BATCH, kv_heads, AXIS_PAST, head_dim)
    signature = [
        TensorSignature(INPUT_IDS, "int64", (AXIS_BATCH, AXIS_SEQUENCE)),
        TensorSignature(ATTENTION_MASK, "int64", (AXIS_BATCH, AXIS_TOTAL)),
    ]
    for i in range(layers):
        signature.append(TensorSignature(past_key(i), cache_dtype, cache))
        signature.append(TensorSignature(past_value(i), cache_dtype, cache))
    signature.append(TensorSignature(LOGITS_TO_KEEP, "int64", (1,)))
    return signature


def decoder_outputs(layers: int, kv_heads: int, head_dim: int, cache_dtype: str, vocab: int) -> list[TensorSignature]:
    """Outputs of a decoder in graph order."""
    cache = (AXIS_BATCH, kv_heads, AXIS_TOTAL, head_dim)
    signature = [TensorSignature(LOGITS, "float32", (AXIS_BATCH, AXIS_KEPT, vocab))]
    for i in range(layers):
        signature.append(TensorSignature(present_key(i), cache_dtype, cache))
        signature.append(TensorSignature(present_value(i), cache_dtype, cache))
    return signature
