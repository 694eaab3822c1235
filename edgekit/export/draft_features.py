"""The output by which a decoder feeds its draft heads: residual streams at the positions that get logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit import contract
from edgekit.errors import ExportError
from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.match import produced_by


def add_draft_features(graph: gs.Graph, layers: Sequence[int], hidden_size: int, dtype: str) -> None:
    """Give a rewritten decoder the output `draft_features`: float32 [B, K, L * d].

    It is added when all rules have run, so that none of them meets another reader of the residual stream.

    Args:
        layers: after how many layers the residual stream is read, side by side in this order.
        dtype: "float32" or "float16", of the residual stream.

    Raises:
        ExportError: the graph keeps no residual stream of that name, or does not cut positions as expected.
    """
    tensors, make = graph.tensors(), Lowering(graph)
    cut = [node for node in graph.nodes if node.op == "Slice" and _is_count(node.inputs[1])]
    missing = [name for name in map(contract.hidden_tap, layers) if name not in tensors]
    if len(cut) != 1 or missing:
        raise ExportError(
            "a decoder with draft heads keeps its residual stream, and cuts it once to the positions with logits",
            f"it has no tensor {missing[0]}" if missing else f"it cuts {len(cut)} times by {contract.LOGITS_TO_KEEP}",
            "report this model",
        )
    _, *where = cut[0].inputs
    stem = contract.DRAFT_FEATURES
    kept = [make.node("Slice", [tensors[contract.hidden_tap(i)], *where], f"{stem}.{i}") for i in layers]
    half = dtype != "float32"
    output = make.node("Concat", kept, f"{stem}.half" if half else stem, axis=-1)
    if half:
        output = make.node("Cast", [output], stem, to=onnx.TensorProto.FLOAT)
    output.dtype = np.dtype(np.float32)
    output.shape = list(contract.draft_features_output(len(layers) * hidden_size).shape)
    graph.outputs.append(output)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def _is_count(start: gs.Tensor) -> bool:
    """Whether a Slice starts at minus the number of positions to keep."""
    negated = produced_by(start, "Neg")
    return negated is not None and bool(negated.inputs[0].name == contract.LOGITS_TO_KEEP)
