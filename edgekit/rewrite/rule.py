"""What a rewrite rule is: what it requires, what it ensures, how often it fired and why it refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx_graphsurgeon as gs

from edgekit.contract import LayerCache
from edgekit.errors import RewriteError


@dataclass(frozen=True)
class Geometry:
    """Sizes of the model being rewritten.

    Attributes:
        caches: the tensors of each layer's cache.
        operators: how many nodes of each `edgekit` operator the trace contains, by name.
        matrices: constant matrices that an encoder multiplies by; None for a decoder, whose layers tell.
        without_base: how many of its matrices are factors or single weights only, in an operator of edgekit's.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    tied: bool
    caches: tuple[LayerCache, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    matrices: int | None = None
    without_base: int = 0

    @property
    def products(self) -> int:
        """Products with constant matrices: q, k, v, o, gate, up, down in each layer of a decoder, and the head."""
        return (7 * self.layers + 1 if self.matrices is None else self.matrices) - self.without_base

    @property
    def packed_products(self) -> int:
        """The same where query, key and value are one product, and gate and up; an encoder's are not packed.

        At least so many, where some matrices are no products.
        """
        return max(0, (4 * self.layers + 1 if self.matrices is None else self.matrices) - self.without_base)

    @property
    def gated(self) -> int:
        """Layers in which gate and up are products, at least."""
        return max(0, self.layers - self.without_base)

    @property
    def causal_attentions(self) -> int:
        """Layers that attend over plain keys and values."""
        return self.operators.get("CausalAttention", 0)


class QuantizedMatrices(Protocol):
    """Quantised matrices, as `edgekit.compress.quantizer.QuantizedModel` holds them."""

    def matrix(self, sources: tuple[str, ...]) -> Any:
        """The `BlockQuantized` of these checkpoint tensors stacked by rows, or None."""


@dataclass
class Context:
    """What rules may know beside the graph.

    Attributes:
        geometry: the model's sizes.
        dtype: element type of activations, "float32" or "float16".
        quantized: the quantised matrices by source; None for an unquantised export.
        capacity: most tokens that a cache must hold; None to leave that to whoever runs the graph.
    """

    geometry: Geometry
    dtype: str = "float32"
    quantized: QuantizedMatrices | None = None
    capacity: int | None = None


@dataclass(frozen=True)
class Refusal:
    """A place where a rule looked and did not fire."""

    node: str
    reason: str


@dataclass
class Outcome:
    """What one application of a rule did."""

    fired: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, node: gs.Node, reason: str) -> None:
        """Record that the rule looked at `node` and why it left it alone."""
        self.refused.append(Refusal(node.name or node.op, reason))

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "fired": self.fired,
            "refused": [{"node": refusal.node, "reason": refusal.reason} for refusal in self.refused],
        }


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        name: the file's name.
        requires: the pattern, in words.
        ensures: what holds afterwards, in words.
        apply: changes the graph in place and tells what it did.
        expected: how often it must fire or refuse with a reason, given the context; None where any count is right.
        check: raises AssertionError with the fact when `ensures` does not hold.
    """

    name: str
    requires: str
    ensures: str
    apply: Callable[[gs.Graph, Context], Outcome]
    expected: Callable[[Context], int] | None = None
    check: Callable[[gs.Graph], None] | None = None


def run_rule(rule: Rule, graph: gs.Graph, context: Context) -> Outcome:
    """Apply a rule, tidy the graph and hold the rule to its word.

    Raises:
        RewriteError: it fired less often than expected without a reason, or what it ensures does not hold.
    """
    outcome = rule.apply(graph, context)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    if rule.expected is not None:
        want = rule.expected(context)
        seen = outcome.fired + len(outcome.refused)
        if seen < want:
            raise RewriteError(
                f"rewrite rule '{rule.name}' must account for {want} places ({rule.requires})",
                f"it fired {outcome.fired} times and refused {len(outcome.refused)}",
                "the traced graph does not have the expected form: check the model file, or report this model",
            )
    if rule.check is not None:
        try:
            rule.check(graph)
        except AssertionError as error:
            raise RewriteError(f"rewrite rule '{rule.name}' ensures: {rule.ensures}", str(error)) from error
    return outcome


def forbid_op(op: str) -> Callable[[gs.Graph], None]:
    """A check that no node of this type is left."""

    def check(graph: gs.Graph) -> None:
        left = [node.name for node in graph.nodes if node.op == op]
        assert not left, f"{len(left)} {op} nodes are left, the first is {left[0]}"

    return check
