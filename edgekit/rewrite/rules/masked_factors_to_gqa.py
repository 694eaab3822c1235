"""edgekit::TPAAttention whose head factors only select → com.microsoft::GroupQueryAttention.

Head factors that do not follow the token and pick one key and value row per head are grouped-query attention on
another head size, and ONNX Runtime's kernel reads the longer caches faster: with three rows and 8192 tokens it takes
0.6 times as long as ours (`scripts/bench-operators --constant --rank 3`). One row for all heads stays, since there ours
takes 0.4 to 0.5 times as long (`--constant --rank 1 --kv-heads 1`). The cache is then bound as keys and values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgekit import contract
from edgekit.rewrite.match import MICROSOFT, constant, produced_by, variable, weight_of
from edgekit.rewrite.rule import Context, Outcome, Rule
from edgekit.rewrite.rules.fuse_gqa import lengths

#: ONNX Runtime's kernels want heads of a multiple of this size.
_HEAD_MULTIPLE = 8


def _values(tensor: gs.Tensor) -> Any:
    """A constant's array, loaded if it is deferred; None for anything else."""
    weight = weight_of(tensor)
    if weight is not None:
        return weight.load()
    return tensor.values if isinstance(tensor, gs.Constant) else None


def _obstacle(node: gs.Node, context: Context) -> str | None:
    """Why a node is no grouped-query attention, or would not be faster as one."""
    if node.attrs["factored_query"] or node.attrs["contextual_key"] or node.attrs["contextual_value"]:
        return "its head factors follow the token"
    _, a_k, _, a_v, _, past_key, past_value, _, cos, _, frequencies = node.inputs
    key, value, columns = _values(a_k), _values(a_v), _values(frequencies)
    if key is None or value is None or columns is None:
        return "its head factors are computed in the graph"
    rank, heads = key.shape
    if heads % rank or not np.array_equal(key, _groups(rank, heads)) or not np.array_equal(value, key):
        return "its head factors mix heads"
    if rank == 1:
        return "one key row for all heads: its own kernel is faster"
    if past_key.shape[3] != past_value.shape[3] or past_key.shape[3] % _HEAD_MULTIPLE:
        return f"its heads have {past_key.shape[3]} and {past_value.shape[3]} features"
    if not np.array_equal(columns, np.arange(past_key.shape[3] // 2)) or cos.shape[1] != len(columns):
        return "its pairs turn at selected frequencies"
    if float(node.attrs["value_scale"]) != 1.0:
        return "its values are scaled"
    return None


def _groups(rank: int, heads: int) -> Any:
    """[rank, heads]: 1 where the head belongs to the group."""
    return np.repeat(np.eye(rank, dtype=np.float32), heads // rank, axis=1)


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    for index, node in enumerate([node for node in graph.nodes if node.op == "TPAAttention"]):
        if (reason := _obstacle(node, context)) is not None:
            outcome.refuse(node, reason)
            continue
        _replace(graph, node, f"grouped_attention.{index}")
        outcome.fired += 1
    return outcome


def _replace(graph: gs.Graph, node: gs.Node, stem: str) -> None:
    query, a_k, key, _, value, past_key, past_value, _, cos, sin, _ = node.inputs
    output, present_key, present_value = node.outputs
    rank, heads = _values(a_k).shape
    size = past_key.shape[3]
    seqlens, total = lengths(graph)
    node.outputs.clear()
    for past, present, suffix in ((past_key, present_key, contract.KEY), (past_value, present_value, contract.VALUE)):
        _bind_as(past, present, suffix, rank, size)
    rows = variable(stem + ".rows")
    attributes = {
        "num_heads": heads,
        "kv_num_heads": rank,
        "scale": float(node.attrs["scale"]),
        "do_rotary": 1,
        "rotary_interleaved": 0,
        "local_window_size": -1,
    }
    graph.nodes.append(
        gs.Node(
            "GroupQueryAttention",
            name=stem,
            attrs=attributes,
            inputs=[
                _joined(graph, query, heads * size, stem + ".query"),
                _joined(graph, key, rank * size, stem + ".key"),
                _joined(graph, value, rank * size, stem + ".value"),
                *(past_key, past_value, seqlens, total, cos, sin),
            ],
            outputs=[rows, present_key, present_value],
            domain=MICROSOFT,
        )
    )
    shape = constant(stem + ".heads", [0, 0, heads, size], np.int64)
    graph.nodes.append(gs.Node("Reshape", stem + ".split", {}, [rows, shape], [output]))


def _bind_as(past: gs.Variable, present: gs.Variable, suffix: str, rank: int, size: int) -> None:
    """Give cache tensors of one factor the names and shapes of keys or values."""
    layer = past.name.split(".")[1]
    form = contract.CacheTensor(suffix, (rank, size))
    past.name, present.name = contract.past_name(layer, suffix), contract.present_name(layer, suffix)
    past.shape = list(form.shape(contract.AXIS_BATCH, contract.AXIS_PAST))
    present.shape = list(form.shape(contract.AXIS_BATCH, contract.AXIS_TOTAL))


def _joined(graph: gs.Graph, tensor: gs.Tensor, width: int, stem: str) -> gs.Tensor:
    """[B, S, rows, size] as [B, S, width]: what was split into rows, or a Reshape."""
    split = produced_by(tensor, "Reshape")
    if split is not None and len(tensor.outputs) == 1:
        return split.inputs[0]
    joined = variable(stem)
    shape = constant(stem + ".width", [0, 0, width], np.int64)
    graph.nodes.append(gs.Node("Reshape", stem + ".join", {}, [tensor, shape], [joined]))
    return joined


RULE = Rule(
    name="masked_factors_to_gqa",
    requires="an edgekit::TPAAttention whose constant head factors pick one row per head",
    ensures="it is a GroupQueryAttention",
    apply=apply,
)
