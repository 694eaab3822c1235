"""Function bodies are taken off: TensorRT up to 10.6 runs the body of a function even where a plugin is registered."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit.contract import OPERATOR_DOMAIN
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome(fired=len(graph.functions))
    graph.functions = []
    return outcome


def _check(graph: gs.Graph) -> None:
    assert not graph.functions, f"{len(graph.functions)} functions are left"
    for node in graph.nodes:
        if node.domain == OPERATOR_DOMAIN:
            missing = {"plugin_namespace", "plugin_version"} - set(node.attrs)
            assert not missing, f"{node.name} lacks {', '.join(sorted(missing))}"


RULE = Rule(
    name="strip_functions",
    requires="function bodies, after attach_functions has written all attributes on the nodes",
    ensures="no function is left, and edgekit's nodes say which plugin they are",
    apply=apply,
    check=_check,
)
