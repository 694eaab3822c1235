"""Rotary position embedding, cache append and grouped-query attention: what a traced decoder contains."""

from __future__ import annotations

from edgekit.ops.spec import Attribute, Axis, Form, Operand, OpSpec

SPEC = OpSpec(
    name="CausalAttention",
    version=1,
    stem="causal_attention",
    summary="rotate, append to the cache and attend causally, with grouped heads",
    source="GQA: Training Generalized Multi-Query Transformer Models (arXiv 2305.13245); RoFormer (arXiv 2104.09864)",
    axes=(
        Axis("B", "batch"),
        Axis("S", "new tokens"),
        Axis("P", "cached tokens"),
        Axis("H", "query heads"),
        Axis("G", "key/value heads"),
        Axis("D", "head size"),
        Axis("L", "positions in the rotary tables"),
    ),
    inputs=(
        Operand("query", "not rotated", (Form(("B", "S", "H*D")),)),
        Operand("key", "not rotated", (Form(("B", "S", "G*D")),)),
        Operand("value", "new values", (Form(("B", "S", "G*D")),)),
        Operand("past_key", "cached keys, rotated", (Form(("B", "G", "P", "D")),)),
        Operand("past_value", "cached values", (Form(("B", "G", "P", "D")),)),
        Operand("attention_mask", "1 real token, 0 padding", (Form(("B", "P+S")),), dtype="int64"),
        Operand("cos", "rotary table", (Form(("L", "D/2")),)),
        Operand("sin", "rotary table", (Form(("L", "D/2")),)),
    ),
    outputs=(
        Operand("output", "attended values", (Form(("B", "S", "H*D")),)),
        Operand("present_key", "past_key and rotated key", (Form(("B", "G", "P+S", "D")),), past="past_key"),
        Operand("present_value", "past_value and value", (Form(("B", "G", "P+S", "D")),), past="past_value"),
    ),
    attributes=(
        Attribute("num_heads", "int", "H", axis="H"),
        Attribute("kv_heads", "int", "G", axis="G"),
        Attribute("scale", "float", "factor on the scores"),
        Attribute("window", "int", "how many slots back a query sees; 0 or less for all"),
        Attribute("softcap", "float", "c in c * tanh(score / c); 0 for none"),
    ),
    dtypes=("float32", "float16", "bfloat16", "float64"),
    trace_only="the rewrite rules fuse_gqa and lower_attention replace it by operators that every runtime has, "
    "so it needs neither a function body nor native code",
)
