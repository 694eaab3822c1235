"""edgekit::TPAAttention in standard ONNX operators.

K and V are not made. Scores are the product of the queries with the feature factors of all slots and ranks, weighted by
the head factors and summed over the ranks; values likewise. Where a head factor is constant it is folded into the query
(keys) or applied after the sum over slots (values), which is multi-query attention on R_K * D and R_V * E features.

Padded slots may hold anything, NaN included: their scores are replaced, not offset, and their values are emptied.
"""

from __future__ import annotations

import onnx

from edgekit.ops.functions._body import Body
from edgekit.ops.spec import Attributes, OpSpec

#: Stands for minus infinity in scores: no row is empty, so its exponential is 0, and no runtime makes NaN of it.
_LOWEST = -3.0e38


def function(spec: OpSpec, opset: int, attributes: Attributes, dtype: str) -> onnx.FunctionProto:
    """The body of one variant; see `edgekit.ops.tpa_attention` for the semantics."""
    body = Body(spec, opset, attributes, dtype)
    slots = _Slots(body)
    turn = _Rotation(body, slots)

    b_k = body.stored(turn(body.widened("b_k")))
    present_b_k = body.appended("past_b_k", b_k, "present_b_k")
    present_b_v = body.appended("past_b_v", "b_v", "present_b_v")
    query = turn(body.widened("b_q"))
    if attributes["factored_query"]:
        a_q = body.transpose(body.widened("a_q"), 0, 1, 3, 2)
        query = body.node("MatMul", a_q, query)
    query = body.node("Mul", query, body.attribute("scale"))

    if attributes["contextual_key"]:
        present_a_k = body.appended("past_a_k", "a_k", "present_a_k")
        scores = _contextual_scores(body, query, present_a_k, present_b_k)
    else:
        scores = _constant_scores(body, query, present_b_k)
    visible = body.unsqueeze(slots.visible, 2)
    scores = body.node("Where", visible, scores, body.real(_LOWEST))
    weights = body.node("Softmax", scores, axis=-1)

    if attributes["contextual_value"]:
        present_a_v = body.appended("past_a_v", "a_v", "present_a_v")
        attended = _contextual_values(body, weights, slots.emptied(present_a_v), slots.emptied(present_b_v))
        new_a_v = body.transpose(body.widened("a_v"), 0, 1, 3, 2)
    else:
        attended = _constant_values(body, weights, slots.emptied(present_b_v))
        new_a_v = body.transpose(body.widened("a_v"), 1, 0)
    own = body.node("MatMul", new_a_v, body.widened("b_v"))
    output = body.node("Add", attended, slots.own_padding(weights, own))
    output = body.node("Mul", output, body.attribute("value_scale"))
    body.stored(output, out="output")
    return body.function()


class _Slots:
    """What the attention mask says: lengths, positions and who sees whom."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.total = body.size("attention_mask", 1)
        past = body.node("Sub", self.total, body.size("b_k", 1))
        running = body.node("CumSum", "attention_mask", body.scalar(1))
        clipped = body.node("Max", body.node("Sub", running, body.ints(1)), body.ints(0))
        #: position of each new token, int64 [B, S]
        self.positions = body.node("Slice", clipped, past, self.total, body.ints(1))
        end = body.node("Squeeze", self.total, body.ints(0))
        slot_j = body.node("Range", body.scalar(0), end, body.scalar(1))
        slot_i = body.unsqueeze(body.node("Slice", slot_j, past, self.total, body.ints(0)), 1)
        self._real = body.node("Cast", "attention_mask", to=onnx.TensorProto.BOOL)
        real = body.unsqueeze(self._real, 1)
        own = body.node("Equal", slot_j, slot_i)
        earlier = body.node("LessOrEqual", slot_j, slot_i)
        #: bool [B, S, T]
        self.visible = body.node("And", earlier, body.node("Or", real, own))
        #: the query's own slot where that is padding, bool [B, S, T]
        self._own_padding = body.node("And", own, body.node("Not", real))
        self._real_rows = body.unsqueeze(self._real, 2, 3)

    def emptied(self, cache: str) -> str:
        """A cache [B, T, R, W] with zeros in its padded slots."""
        body = self._body
        return body.node("Where", self._real_rows, body.widened(cache), body.real(0.0))

    def own_padding(self, weights: str, own: str) -> str:
        """What a padding token's own slot, which is emptied for the others, adds to its row: [B, S, H, E].

        Args:
            weights: [B, S, H, T].
            own: values of the new tokens [B, S, H, E].
        """
        body = self._body
        alone = body.node("Where", body.unsqueeze(self._own_padding, 2), weights, body.real(0.0))
        term = body.node("Mul", body.sum(alone, -1, keep=True), own)
        past = body.node("Sub", self.total, body.size("b_k", 1))
        real = body.unsqueeze(body.node("Slice", self._real, past, self.total, body.ints(1)), 2, 3)
        return body.node("Where", real, body.real(0.0), term)


class _Rotation:
    """Turns rows [B, S, R, D] to the positions of their tokens."""

    def __init__(self, body: Body, slots: _Slots) -> None:
        self._body = body
        self._cos, self._sin = (self._rows(table, slots.positions) for table in ("cos", "sin"))

    def _rows(self, table: str, positions: str) -> str:
        body = self._body
        rows = body.node("Gather", body.node("Gather", table, positions, axis=0), "frequencies", axis=2)
        return body.widened(body.unsqueeze(rows, 2))

    def __call__(self, x: str) -> str:
        body = self._body
        x1, x2 = body.split(x)
        first = body.node("Sub", body.node("Mul", x1, self._cos), body.node("Mul", x2, self._sin))
        second = body.node("Add", body.node("Mul", x2, self._cos), body.node("Mul", x1, self._sin))
        return body.node("Concat", first, second, axis=-1)


def _contextual_scores(body: Body, query: str, a_k: str, b_k: str) -> str:
    """[B, S, H, T] from query [B, S, H, D], a_k [B, T, R, H], b_k [B, T, R, D]."""
    # Slots last: products with head factors run along them.
    new, heads, size = (body.size(query, axis) for axis in (1, 2, 3))
    rows = body.reshape(body.transpose(body.widened(b_k), 0, 2, 1, 3), 0, -1, size)
    products = body.node("MatMul", body.reshape(query, 0, -1, size), body.transpose(rows, 0, 2, 1))
    products = body.reshape(products, 0, new, heads, body.size(a_k, 2), -1)
    weighted = body.node("Mul", products, body.unsqueeze(body.transpose(body.widened(a_k), 0, 3, 2, 1), 1))
    return body.sum(weighted, 3)


def _constant_scores(body: Body, query: str, b_k: str) -> str:
    """[B, S, H, T] from query [B, S, H, D], a_k [R, H], b_k [B, T, R, D]."""
    new, heads = body.size(query, 1), body.size(query, 2)
    a_k = body.unsqueeze(body.transpose(body.widened("a_k"), 1, 0), 2)
    mixed = body.reshape(body.node("Mul", body.unsqueeze(query, 3), a_k), 0, 0, 0, -1)
    width = body.size(mixed, 3)
    queries = body.reshape(mixed, 0, -1, width)
    keys = body.transpose(body.reshape(body.widened(b_k), 0, 0, -1), 0, 2, 1)
    return body.reshape(body.node("MatMul", queries, keys), 0, new, heads, -1)


def _contextual_values(body: Body, weights: str, a_v: str, b_v: str) -> str:
    """[B, S, H, E] from weights [B, S, H, T], a_v [B, T, R, H], b_v [B, T, R, E]."""
    new, heads = body.size(weights, 1), body.size(weights, 2)
    factors = body.unsqueeze(body.transpose(a_v, 0, 3, 2, 1), 1)
    mixed = body.node("Mul", body.unsqueeze(weights, 3), factors)
    slots = body.node("Mul", body.size(a_v, 1), body.size(a_v, 2))
    rows = body.reshape(body.transpose(b_v, 0, 2, 1, 3), 0, slots, -1)
    attended = body.node("MatMul", body.reshape(mixed, 0, -1, slots), rows)
    return body.reshape(attended, 0, new, heads, -1)


def _constant_values(body: Body, weights: str, b_v: str) -> str:
    """[B, S, H, E] from weights [B, S, H, T], a_v [R, H], b_v [B, T, R, E]."""
    new, heads = body.size(weights, 1), body.size(weights, 2)
    rank, size = body.size(b_v, 2), body.size(b_v, 3)
    rows = body.reshape(weights, 0, -1, body.size(weights, 3))
    attended = body.node("MatMul", rows, body.reshape(b_v, 0, 0, -1))
    attended = body.reshape(attended, 0, new, heads, rank, size)
    a_v = body.unsqueeze(body.transpose(body.widened("a_v"), 1, 0), 2)
    return body.sum(body.node("Mul", attended, a_v), 3)
