"""The ordered list of rules for each target form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import onnx_graphsurgeon as gs

from edgekit.contract import FORM_JETPACK6, FORM_ORT, FORM_PORTABLE, FORM_TENSORRT
from edgekit.rewrite.rule import Context, Outcome, Rule, run_rule
from edgekit.rewrite.tensorrt_pipelines import DRAFT_JETPACK6, DRAFT_TENSORRT, JETPACK6, TENSORRT

#: Standard ONNX operators only: runs in any runtime, and is what TensorRT parses.
PORTABLE = [
    "fold_weight_transpose",
    "lower_attention",
    "quantize_linear_qdq",
    "logits_to_float32",
    "tt_pair_to_products",
    "inline_tt_sparse",
    "attach_functions",
]

#: Fused for ONNX Runtime's CPU and CUDA providers.
ORT = [
    "fold_weight_transpose",
    "fuse_tied_head",
    "fuse_gqa",
    "masked_factors_to_gqa",
    "pack_qkv",
    "pack_gate_up",
    "pack_factors",
    "stack_bases",
    "fuse_skip_norm",
    "fuse_norm",
    "quantize_linear",
    "quantize_embedding",
    "logits_to_float32",
    "attach_functions",
]

#: Encoders: attention is one standard operator already, and the engine fuses residuals with norms, and activations.
ENCODER_PORTABLE = ["fold_weight_transpose", "quantize_linear_qdq", "tt_pair_to_products", "inline_tt_sparse"]
ENCODER_ORT = ["fold_weight_transpose", "quantize_linear", "quantize_embedding", "attach_functions"]

PIPELINES = {FORM_PORTABLE: PORTABLE, FORM_ORT: ORT, FORM_TENSORRT: TENSORRT, FORM_JETPACK6: JETPACK6}
ENCODER_PIPELINES = {FORM_PORTABLE: ENCODER_PORTABLE, FORM_ORT: ENCODER_ORT}

#: The rules for a draft graph, which is built with its matrices transposed and has neither attention nor embedding.
DRAFT_PIPELINES = {
    FORM_PORTABLE: ["quantize_linear_qdq"],
    FORM_ORT: ["pack_gate_up", "fuse_norm", "quantize_linear", "quantize_embedding"],
    FORM_TENSORRT: DRAFT_TENSORRT,
    FORM_JETPACK6: DRAFT_JETPACK6,
}


def rule_named(name: str) -> Rule:
    """The rule in `edgekit/rewrite/rules/<name>.py`."""
    rule: Rule = import_module(f"edgekit.rewrite.rules.{name}").RULE
    return rule


def rewrite(
    graph: gs.Graph,
    form: str,
    context: Context,
    progress: Callable[[str], None] | None = None,
    pipelines: Mapping[str, Sequence[str]] = PIPELINES,
) -> dict[str, Outcome]:
    """Run a form's pipeline over a traced graph, in place; the outcome of each rule in order.

    Args:
        progress: told each rule's name before it runs.
        pipelines: PIPELINES for a decoder, ENCODER_PIPELINES for an encoder, DRAFT_PIPELINES for a draft graph.

    Raises:
        RewriteError: a rule fired less often than expected, or does not hold what it ensures.
    """
    outcomes = {}
    for name in pipelines[form]:
        if progress is not None:
            progress(name)
        outcomes[name] = run_rule(rule_named(name), graph, context)
    return outcomes
