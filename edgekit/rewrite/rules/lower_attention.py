"""edgekit::CausalAttention → standard ONNX: RotaryEmbedding, Concat with the past, Attention with an explicit mask.

Positions and masks depend on the attention mask alone; they are computed once for all layers (one mask per window).
The cache is concatenated outside Attention because TensorRT's importer takes the operator without past inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from edgekit.contract import ATTENTION_MASK, INPUT_IDS
from edgekit.rewrite.match import constant, variable
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op


class Masks:
    """Builds what layers share: positions int64 [B, S] and, per window, visibility bool [B, 1, S, T]."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        self._tokens, self._mask = inputs[INPUT_IDS], inputs[ATTENTION_MASK]
        self._windows: dict[int, gs.Variable] = {}
        self._constants: dict[tuple[str, Any], gs.Constant] = {}
        axis1 = self.ints(1)
        self._total = self.node("Shape", [self._mask], "mask.total", start=1, end=2)
        self._new = self.node("Shape", [self._tokens], "mask.sequence", start=1, end=2)
        self._past = self.node("Sub", [self._total, self._new], "mask.past")
        running = self.node("CumSum", [self._mask, self.scalar(1)], "mask.running")
        counted = self.node("Sub", [running, self.ints(1)], "mask.counted")
        clipped = self.node("Max", [counted, self.ints(0)], "mask.clipped")
        #: position of each new token, int64 [B, S]
        self.positions = self.node("Slice", [clipped, self._past, self._total, axis1], "mask.positions")

    def node(self, op: str, inputs: list[gs.Tensor], output: str, **attributes: Any) -> gs.Variable:
        result = variable(output)
        self._graph.nodes.append(gs.Node(op, name=output, attrs=attributes, inputs=inputs, outputs=[result]))
        return result

    def ints(self, *values: int) -> gs.Constant:
        key = ("ints", values)
        if key not in self._constants:
            name = "mask.ints_" + "_".join(str(v).replace("-", "m") for v in values)
            self._constants[key] = constant(name, values, np.int64)
        return self._constants[key]

    def scalar(self, value: int) -> gs.Constant:
        key = ("scalar", value)
        if key not in self._constants:
            self._constants[key] = constant(f"mask.scalar_{value}", value, np.int64)
        return self._constants[key]

    def rotated(self, x: gs.Tensor, tables: tuple[gs.Tensor, gs.Tensor], heads: int, stem: str) -> gs.Variable:
        """x [B, S, heads · D] turned to the positions of its tokens."""
        return self.node("RotaryEmbedding", [x, *tables, self.positions], stem + ".rotated", num_heads=heads)

    def heads(self, x: gs.Tensor, heads: int, size: int, stem: str) -> gs.Variable:
        """[B, S, heads · D] → [B, heads, S, D]."""
        rows = self.node("Reshape", [x, self.ints(0, 0, heads, size)], stem + ".rows")
        return self.node("Transpose", [rows], stem + ".heads", perm=[0, 2, 1, 3])

    def visible(self, window: int) -> gs.Variable:
        """What each query sees: bool [B, 1, S, T]; see `edgekit.ops.causal_attention` for the rule."""
        if window not in self._windows:
            self._windows[window] = self._build(window)
        return self._windows[window]

    def _build(self, window: int) -> gs.Variable:
        stem = "mask.full" if window <= 0 else f"mask.window_{window}"
        total = self.node("Squeeze", [self._total, self.ints(0)], stem + ".total")
        slots = self.node("Range", [self.scalar(0), total, self.scalar(1)], stem + ".slots")
        # Not a slice of the slots: TensorRT bounds that by all T of them, and reserves memory for a mask [T, T].
        new = self.node("Squeeze", [self._new, self.ints(0)], stem + ".new")
        order = self.node("Range", [self.scalar(0), new, self.scalar(1)], stem + ".order")
        queries = self.node("Add", [order, self._past], stem + ".query_slots")
        column = self.node("Unsqueeze", [queries, self.ints(1)], stem + ".query_column")
        seen = self.node("LessOrEqual", [slots, column], stem + ".causal")
        if window > 0:
            distance = self.node("Sub", [column, slots], stem + ".distance")
            near = self.node("Less", [distance, self.scalar(window)], stem + ".near")
            seen = self.node("And", [seen, near], stem + ".causal_near")
        own = self.node("Equal", [slots, column], stem + ".own")
        real = self.node("Cast", [self._mask], stem + ".real", to=np.bool_)
        real = self.node("Unsqueeze", [real, self.ints(1, 2)], stem + ".real_keys")
        allowed = self.node("Or", [real, own], stem + ".allowed")
        return self.node("And", [seen, allowed], stem)


def apply(graph: gs.Graph, context: Context) -> Outcome:
    outcome = Outcome()
    targets = [node for node in graph.nodes if node.op == "CausalAttention"]
    if not targets:
        return outcome
    masks = Masks(graph)
    for index, node in enumerate(targets):
        query, key, value, past_key, past_value, _, cos, sin = node.inputs
        output, present_key, present_value = node.outputs
        attrs, stem = node.attrs, f"attention.{index}"
        heads, kv_heads = attrs["num_heads"], attrs["kv_heads"]
        node.outputs.clear()

        size = context.geometry.head_dim
        q = masks.heads(masks.rotated(query, (cos, sin), heads, stem + ".q"), heads, size, stem + ".q")
        k = masks.heads(masks.rotated(key, (cos, sin), kv_heads, stem + ".k"), kv_heads, size, stem + ".k")
        v = masks.heads(value, kv_heads, size, stem + ".v")
        for past, new, present in ((past_key, k, present_key), (past_value, v, present_value)):
            graph.nodes.append(
                gs.Node("Concat", name=present.name, attrs={"axis": 2}, inputs=[past, new], outputs=[present])
            )
        extra = {"softcap": float(attrs["softcap"])} if attrs.get("softcap") else {}
        attended = masks.node(
            "Attention",
            [q, present_key, present_value, masks.visible(attrs["window"])],
            stem + ".attended",
            scale=float(attrs["scale"]),
            **extra,
        )
        rows = masks.node("Transpose", [attended], stem + ".attended_rows", perm=[0, 2, 1, 3])
        width = heads * context.geometry.head_dim
        graph.nodes.append(
            gs.Node("Reshape", name=stem + ".out", inputs=[rows, masks.ints(0, 0, width)], outputs=[output])
        )
        outcome.fired += 1
    return outcome


RULE = Rule(
    name="lower_attention",
    requires="an edgekit::CausalAttention in each layer",
    ensures="attention is spelled in standard operators",
    apply=apply,
    expected=lambda context: context.geometry.causal_attentions,
    check=forbid_op("CausalAttention"),
)
