"""The caches that edgekit's operators append to become buffers of a capacity, which the operators write in place.

TensorRT binds past and present to one buffer, and needs to know beforehand that a present has the shape of its past.
The function bodies of such nodes take and give whole buffers too.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from edgekit import contract
from edgekit.rewrite.rule import Context, Outcome, Rule


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    pasts = {tensor.name: tensor for tensor in graph.inputs}
    for node in graph.nodes:
        if node.domain != contract.OPERATOR_DOMAIN:
            continue
        caches = [tensor for tensor in node.inputs if _present_of(tensor, pasts) in {t.name for t in node.outputs}]
        if not caches:
            outcome.refuse(node, "its caches are not inputs and outputs of the graph")
            continue
        node.attrs["in_place"] = 1
        presents = {tensor.name: tensor for tensor in node.outputs}
        for past in caches:
            axis = contract.SEQUENCE_AXES[past.name.rpartition(".")[2]]
            for tensor in (past, presents[_present_of(past, pasts)]):
                tensor.shape = [contract.AXIS_CAPACITY if i == axis else size for i, size in enumerate(tensor.shape)]
        outcome.fired += 1
    return outcome


def _present_of(tensor: gs.Tensor, pasts: dict[str, gs.Tensor]) -> str:
    """The name of the output that continues a past input; empty for any other tensor."""
    prefix, _, rest = tensor.name.partition(".")
    if tensor.name not in pasts or not rest or prefix != contract.past_name("", "").partition(".")[0]:
        return ""
    return contract.present_name(*rest.split("."))


RULE = Rule(
    name="share_factor_caches",
    requires="an edgekit operator that appends to a cache",
    ensures="it writes the cache in place, in a buffer of a capacity",
    apply=apply,
)
