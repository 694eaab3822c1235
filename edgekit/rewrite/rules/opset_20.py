"""The graph says opset 20, the highest that TensorRT 10.3 takes; every operator in it must exist there."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from edgekit.rewrite.rule import Context, Outcome, Rule

OPSET = 20


def apply(graph: gs.Graph, context: Context) -> Outcome:
    if graph.opset <= OPSET:
        return Outcome()
    graph.opset = OPSET
    graph.import_domains = [
        onnx.helper.make_opsetid("", OPSET) if entry.domain in ("", "ai.onnx") else entry
        for entry in graph.import_domains or []
    ] or None
    return Outcome(fired=1)


def _check(graph: gs.Graph) -> None:
    for node in graph.nodes:
        if node.domain:
            continue
        try:
            schema = onnx.defs.get_schema(node.op, OPSET)
        except onnx.defs.SchemaError:
            raise AssertionError(f"{node.name} is {node.op}, which opset {OPSET} does not have") from None
        unknown = set(node.attrs) - set(schema.attributes)
        assert not unknown, f"{node.op} has no attribute {', '.join(sorted(unknown))} in opset {OPSET} ({node.name})"


RULE = Rule(
    name="opset_20",
    requires="a graph of a later opset whose operators all existed in opset 20",
    ensures="the graph is valid in opset 20",
    apply=apply,
    check=_check,
)
