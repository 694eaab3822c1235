"""edgekit::CausalAttention → com.microsoft::GroupQueryAttention, which rotates, appends to the cache in place and
attends in one kernel when past and present are bound to the same buffer [B, G, C, D]."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit.contract import ATTENTION_MASK
from edgekit.rewrite.match import MICROSOFT, constant, variable
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op


def lengths(graph: gs.Graph) -> tuple[gs.Variable, gs.Variable]:
    """Nodes that give seqlens_k = sum(mask) - 1, int32 [B], and the longest total length, int32 scalar."""
    made = graph.tensors()
    if "lengths.total" in made:
        return made["lengths.seqlens_k"], made["lengths.total"]
    mask = next(tensor for tensor in graph.inputs if tensor.name == ATTENTION_MASK)
    counted, last = variable("lengths.counted"), variable("lengths.last")
    seqlens, shape = variable("lengths.seqlens_k", np.int32), variable("lengths.mask_shape")
    total64, total = variable("lengths.total64"), variable("lengths.total", np.int32)
    axis, one = constant("lengths.axis", [1], np.int64), constant("lengths.one", [1], np.int64)
    index = constant("lengths.index", 1, np.int64)
    int32 = {"to": onnx.TensorProto.INT32}
    graph.nodes.extend(
        [
            gs.Node("ReduceSum", "lengths.sum", {"keepdims": 0}, [mask, axis], [counted]),
            gs.Node("Sub", "lengths.sub", {}, [counted, one], [last]),
            gs.Node("Cast", "lengths.cast_seqlens", int32, [last], [seqlens]),
            gs.Node("Shape", "lengths.shape", {}, [mask], [shape]),
            gs.Node("Gather", "lengths.gather", {"axis": 0}, [shape, index], [total64]),
            gs.Node("Cast", "lengths.cast_total", int32, [total64], [total]),
        ]
    )
    return seqlens, total


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    targets = [node for node in graph.nodes if node.op == "CausalAttention"]
    if not targets:
        return outcome
    seqlens, total = lengths(graph)
    for index, node in enumerate(targets):
        query, key, value, past_key, past_value, _, cos, sin = node.inputs
        attributes = {
            "num_heads": node.attrs["num_heads"],
            "kv_num_heads": node.attrs["kv_heads"],
            "scale": float(node.attrs["scale"]),
            "do_rotary": 1,
            "rotary_interleaved": 0,
            # Both windows count the current token.
            "local_window_size": node.attrs["window"] if node.attrs["window"] > 0 else -1,
            "softcap": float(node.attrs.get("softcap", 0.0)),
        }
        outputs = list(node.outputs)
        node.outputs.clear()
        graph.nodes.append(
            gs.Node(
                "GroupQueryAttention",
                name=f"attention.{index}",
                attrs=attributes,
                inputs=[query, key, value, past_key, past_value, seqlens, total, cos, sin],
                outputs=outputs,
                domain=MICROSOFT,
            )
        )
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="fuse_gqa",
    requires="an edgekit::CausalAttention in each layer",
    ensures="each layer attends with one GroupQueryAttention",
    apply=apply,
    expected=lambda context: context.geometry.causal_attentions,
    check=forbid_op("CausalAttention"),
)
