"""edgekit::CausalAttention → standard ONNX: RotaryEmbedding, Concat with the past, Attention with an explicit mask.

Positions and masks depend on the attention mask alone; they are computed once for all layers (one mask per window).
The cache is concatenated outside Attention because TensorRT's importer takes the operator without past inputs.
"""

from __future__ import annotations

from collections.abc import Callable
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
        #: number of columns of the mask, and of new tokens, int64 [1]
        self.total = self.node("Shape", [self._mask], "mask.total", start=1, end=2)
        self.sequence = self.node("Shape", [self._tokens], "mask.sequence", start=1, end=2)
        #: position of each new token, int64 [B, S]
        self.positions = self._positions()

    def _positions(self) -> gs.Variable:
        self._past = self.node("Sub", [self.total, self.sequence], "mask.past")
        counted = self.counted(self._mask)
        return self.node("Slice", [counted, self._past, self.total, self.ints(1)], "mask.positions")

    def counted(self, real: gs.Tensor) -> gs.Variable:
        """The position that a token in each slot has: real tokens before it; real int64 [B, T] of 0 and 1."""
        running = self.node("CumSum", [real, self.scalar(1)], "mask.running")
        counted = self.node("Sub", [running, self.ints(1)], "mask.counted")
        return self.node("Max", [counted, self.ints(0)], "mask.clipped")

    def node(self, op: str, inputs: list[gs.Tensor], output: str, **attributes: Any) -> gs.Variable:
        result = variable(output)
        self.add(gs.Node(op, name=output, attrs=attributes, inputs=inputs, outputs=[result]))
        return result

    def add(self, node: gs.Node) -> None:
        self._graph.nodes.append(node)

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

    def range(self, count: gs.Tensor, name: str) -> gs.Variable:
        """0, 1, … below a count int64 [1]."""
        end = self.node("Squeeze", [count, self.ints(0)], name + "_end")
        return self.node("Range", [self.scalar(0), end, self.scalar(1)], name)

    def _query_slots(self, slots: gs.Variable, stem: str) -> gs.Variable:
        """The slots of the new tokens, one below the other: [S, 1]."""
        # Not a slice of the slots: TensorRT bounds that by all T of them, and reserves memory for a mask [T, T].
        order = self.range(self.sequence, stem + ".order")
        queries = self.node("Add", [order, self._past], stem + ".query_slots")
        return self.node("Unsqueeze", [queries, self.ints(1)], stem + ".query_column")

    def _build(self, window: int) -> gs.Variable:
        stem = "mask.full" if window <= 0 else f"mask.window_{window}"
        slots = self.range(self.total, stem + ".slots")
        column = self._query_slots(slots, stem)
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
    return lower(graph, context, Masks, _appended)


#: Appends rows to a past: (masks, past, new, present) to what is attended to.
Append = Callable[[Masks, gs.Tensor, gs.Tensor, gs.Tensor], gs.Tensor]


def _appended(masks: Masks, past: gs.Tensor, new: gs.Tensor, present: gs.Tensor) -> gs.Tensor:
    masks.add(gs.Node("Concat", name=present.name, attrs={"axis": 2}, inputs=[past, new], outputs=[present]))
    return present


def lower(graph: gs.Graph, context: Context, masks_of: Callable[[gs.Graph], Masks], append: Append) -> Outcome:
    """Replace every CausalAttention, with masks of one kind and one way to append to a cache."""
    outcome = Outcome()
    targets = [node for node in graph.nodes if node.op == "CausalAttention"]
    if not targets:
        return outcome
    masks = masks_of(graph)
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
        keys = append(masks, past_key, k, present_key)
        values = append(masks, past_value, v, present_value)
        extra = {"softcap": float(attrs["softcap"])} if attrs.get("softcap") else {}
        attended = masks.node(
            "Attention",
            [q, keys, values, masks.visible(attrs["window"])],
            stem + ".attended",
            scale=float(attrs["scale"]),
            **extra,
        )
        rows = masks.node("Transpose", [attended], stem + ".attended_rows", perm=[0, 2, 1, 3])
        width = heads * context.geometry.head_dim
        masks.add(gs.Node("Reshape", name=stem + ".out", inputs=[rows, masks.ints(0, 0, width)], outputs=[output]))
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
