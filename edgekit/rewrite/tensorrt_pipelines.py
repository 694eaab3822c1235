"""The ordered rules of the forms for TensorRT."""

from __future__ import annotations

#: TensorRT 10.15 and newer, and TensorRT-RTX: plugins where they are registered, else the function bodies. By its table
#: 10.15 takes neither CumSum nor Clip over integers.
TENSORRT = [
    "fold_weight_transpose",
    "lower_attention_in_place",
    "quantize_linear_qdq",
    "logits_to_float32",
    "tt_pair_to_products",
    "two_of_four_to_product",
    "share_factor_caches",
    "attach_functions",
    "sum_masks_in_float",
    "lower_integer_clip",
]

_IN_OPSET_20 = {
    "lower_attention_in_place": "lower_attention",
    "tt_pair_to_products": "tt_pair_to_plain_products",
}
#: TensorRT 10.3 (JetPack 6): opset 20, and plugins only, since there a function always wins over a plugin.
JETPACK6 = [
    *(_IN_OPSET_20.get(rule, rule) for rule in TENSORRT),
    "strip_functions",
    "lower_attention_products",
    "lower_rotary_embedding",
    "lower_rms_normalization",
    "lower_gelu",
    "lower_cast_like",
    "opset_20",
]

#: The same for a draft graph, which is built of operators that both take, but for its norms.
DRAFT_TENSORRT = ["quantize_linear_qdq"]
DRAFT_JETPACK6 = [*DRAFT_TENSORRT, "lower_rms_normalization", "opset_20"]
