"""The graph of draft heads, which makes drafts from what the decoder gave: see `edgekit.draft.heads` for the formulas.

It is built node by node of standard operators, each matrix as the right side of a MatMul, and rewritten like a decoder.
Components that are not asked for are not computed: the weights of the c chosen ones are gathered.

B batch, L feature layers, d hidden size, F = L * d, n drafted tokens, r components, c of them computed, D vocabulary,
P new positions, W earlier ones that are seen, N numbers kept of each, H heads of size e that share J keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit import contract
from edgekit.draft.config import DraftConfig
from edgekit.export.draft_weights import COMPONENT_DOWN, COMPONENT_UP, DISTANCE, TOKEN_TABLE
from edgekit.export.trace import IR_VERSION, OPSET
from edgekit.rewrite.lowering import Lowering
from edgekit.rewrite.weights import Weight

_ONNX_TYPES = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}


def draft_graph(config: DraftConfig, weights: Mapping[str, Weight], components: int, dtype: str) -> gs.Graph:
    """The graph with the inputs and outputs of `edgekit.contract`.

    Args:
        weights: by the names that `edgekit.export.draft_weights` gives them.
        components: c, from 1 to r. Below r the graph takes the largest of log weight plus noise.
        dtype: "float32" or "float16", of activations.
    """
    graph = gs.Graph(opset=OPSET, ir_version=IR_VERSION)
    kept = (config.window, config.kept)
    signature = contract.draft_inputs(config.features, config.rank, components, *kept)
    graph.inputs = [gs.Variable(each.name, np.dtype(each.dtype), list(each.shape)) for each in signature]
    builder = _Builder(graph, config, weights, components, dtype)
    given = {tensor.name: tensor for tensor in graph.inputs}
    u, present = builder.trunk(
        given[contract.DRAFT_FEATURES], given[contract.DRAFT_TOKEN], given.get(contract.DRAFT_PAST)
    )
    log_weights, chosen = builder.mixture(u, given.get(contract.DRAFT_NOISE))
    probabilities = builder.probabilities(builder.positions(u, chosen))
    graph.outputs = [log_weights, probabilities, *([present] if present is not None else [])]
    made = contract.draft_outputs(config.tokens, components, config.vocabulary, *kept)
    for tensor, each in zip(graph.outputs, made, strict=True):
        assert tensor.name == each.name, tensor.name
        tensor.dtype, tensor.shape = np.dtype(each.dtype), list(each.shape)
    return graph.cleanup().toposort()


class _Builder:
    def __init__(
        self, graph: gs.Graph, config: DraftConfig, weights: Mapping[str, Weight], components: int, dtype: str
    ) -> None:
        self._config, self._weights, self._components, self._dtype = config, weights, components, dtype
        self._make = Lowering(graph)
        self._node = self._make.node

    def trunk(
        self, features: gs.Variable, token: gs.Variable, past: gs.Variable | None
    ) -> tuple[gs.Variable, gs.Variable | None]:
        """u [B, d] from features [B, F] and the known token [B]; or from [B, P, F], [B, P] and what was kept of
        earlier positions [B, W, N], with what is to be kept now."""
        c, node = self._config, self._node
        parts = [self._cast(features, "float32", "features.half")]
        if len(c.feature_layers) > 1:
            sizes = self._make.ints(*[c.hidden_size] * len(c.feature_layers))
            parts = self._split(parts[0], sizes, len(c.feature_layers), "features.split")
        read = [self._norm(part, f"feature_norms.{i}") for i, part in enumerate(parts)]
        u = self._linear(node("Concat", [*read, self._row(token)], "read", axis=-1), "project.weight")
        present = None
        if past is not None:
            u, present = self._attended(u, past)
        x = self._norm(u, "trunk_norm")
        gate, up = self._linear(x, "trunk.gate_proj.weight"), self._linear(x, "trunk.up_proj.weight")
        inner = node("Mul", [self._silu(gate, "trunk.silu"), up], "trunk.inner")
        return node("Add", [u, self._linear(inner, "trunk.down_proj.weight")], "u"), present

    def _attended(self, x: gs.Variable, past: gs.Variable) -> tuple[gs.Variable, gs.Variable]:
        """The last of x [B, P, d] with what it takes of the positions it sees, [B, d]; and what is kept [B, W, N]."""
        c, node, ints = self._config, self._node, self._make.ints
        size, stem = c.kv_heads * c.head_size, "attention"
        normed = self._norm(x, "attention_norm")
        key, value = (self._linear(normed, f"attention.{name}_proj.weight") for name in "kv")
        # 1 for each position that is there, of the shape that x has.
        there = node("Mul", [node("Slice", [key, ints(0), ints(1), ints(2)], f"{stem}.one"), self._number(0)], stem)
        there = node("Add", [there, self._number(1)], f"{stem}.there")
        rows = node("Concat", [key, value, there], f"{stem}.rows", axis=-1)
        if self._half:
            rows = node("Cast", [rows], f"{stem}.rows.wide", to=onnx.TensorProto.FLOAT)
        every = node("Concat", [past, rows], f"{stem}.every", axis=1)
        # A Reshape, for TensorRT to know that of a varying number as many are left as are seen.
        seen = node("Reshape", [self._last(every, c.window + 1, f"{stem}.last"), ints(0, c.window + 1, c.kept)], stem)
        present = self._last(seen, c.window, contract.DRAFT_PRESENT)
        seen = self._cast(seen, "float32", f"{stem}.seen.half")
        keys, values, there = self._split(seen, ints(size, size, 1), 3, f"{stem}.split")
        heads = ints(0, c.window + 1, c.kv_heads, c.head_size)
        keys = node("Transpose", [node("Reshape", [keys, heads], f"{stem}.keys")], f"{stem}.k", perm=[0, 2, 3, 1])
        values = node("Transpose", [node("Reshape", [values, heads], f"{stem}.values")], f"{stem}.v", perm=[0, 2, 1, 3])
        query = self._linear(self._last(normed, 1, f"{stem}.asking"), "attention.q_proj.weight")
        query = node("Reshape", [query, ints(0, c.kv_heads, c.heads // c.kv_heads, c.head_size)], f"{stem}.query")
        query = node("Mul", [query, self._number(c.head_size**-0.5)], f"{stem}.q")
        scores = node("Add", [node("MatMul", [query, keys], f"{stem}.scores"), self._constant(DISTANCE)], f"{stem}.far")
        # Far below every score, and still a number in half precision.
        gone = node("Mul", [node("Sub", [there, self._number(1)], f"{stem}.gone"), self._number(3e4)], f"{stem}.mask")
        gone = node("Reshape", [gone, ints(0, 1, 1, c.window + 1)], f"{stem}.masks")
        shares = node("Softmax", [node("Add", [scores, gone], f"{stem}.masked")], f"{stem}.shares", axis=-1)
        mixed = node("Reshape", [node("MatMul", [shares, values], f"{stem}.mixed"), ints(0, -1)], f"{stem}.joined")
        last = node("Squeeze", [self._last(x, 1, "x.last"), ints(1)], "x.here")
        return node("Add", [last, self._linear(mixed, "attention.o_proj.weight")], "x.attended"), present

    def _last(self, x: gs.Variable, count: int, stem: str) -> gs.Variable:
        """The last `count` of the positions of x [B, T, ...]."""
        ints = self._make.ints
        return self._node("Slice", [x, ints(-count), ints(np.iinfo(np.int32).max), ints(1)], stem)

    def _number(self, value: float) -> gs.Constant:
        return self._make.scalar(value, self._dtype)

    def _row(self, token: gs.Variable) -> gs.Variable:
        """The rows [B, token_rank] of the token table."""
        row = self._node("Gather", [self._constant(TOKEN_TABLE), token], "token.row", axis=0)
        return self._cast(row, str(self._weights[TOKEN_TABLE].dtype), "token")

    def mixture(self, u: gs.Variable, noise: gs.Variable | None) -> tuple[gs.Variable, gs.Variable | None]:
        """Log weights [B, c] of the computed components, and which these are, int64 [B, c]; None for all r."""
        node = self._node
        scores = node("MatMul", [u, self._constant("mixture.weight")], "mixture")
        scores = node("Cast", [scores], "mixture.scores", to=onnx.TensorProto.FLOAT) if self._half else scores
        chosen = None
        if noise is not None:
            # Scores and log weights differ by a number per row, which neither the order nor a softmax sees.
            noisy = node("Add", [scores, noise], "mixture.noisy")
            chosen = self._top(noisy)
            scores = node("GatherElements", [scores, chosen], "mixture.kept", axis=-1)
        return node("LogSoftmax", [scores], contract.DRAFT_LOG_WEIGHTS, axis=-1), chosen

    def _top(self, scores: gs.Variable) -> gs.Variable:
        values = self._node("TopK", [scores, self._make.ints(self._components)], "mixture.top", axis=-1)
        chosen = gs.Variable("mixture.chosen", np.dtype(np.int64))
        [topk] = values.inputs
        topk.outputs.append(chosen)
        return chosen

    def positions(self, u: gs.Variable, chosen: gs.Variable | None) -> gs.Variable:
        """v [B, n, c, d]."""
        c, node, ints = self._config, self._node, self._make.ints
        inner = self._silu(self._linear(u, "down.weight"), "down.silu")
        parts = [inner]
        if c.tokens > 1:
            parts = self._split(inner, ints(*[c.residual_rank] * c.tokens), c.tokens, "down.split")
        moved = [self._linear(part, f"up.{i}.weight") for i, part in enumerate(parts)]
        side_by_side = node("Concat", moved, "up", axis=-1) if c.tokens > 1 else moved[0]
        own = node("Reshape", [side_by_side, ints(0, c.tokens, 1, c.hidden_size)], "up.positions")
        wide = node("Unsqueeze", [u, ints(1, 2)], "u.wide")
        v = node("Add", [wide, own], "v.shared")
        if c.component_rank:
            v = node("Add", [v, self._component(wide, chosen)], "v")
        elif self._components > 1:
            v = node("Expand", [v, ints(1, 1, self._components, 1)], "v")
        return self._norm(v, "norm")

    def _component(self, u: gs.Variable, chosen: gs.Variable | None) -> gs.Variable:
        """What each computed component adds to each position, [B, n, c, d], from u [B, 1, 1, d]."""
        c, node, ints = self._config, self._node, self._make.ints
        down, up = self._chosen(COMPONENT_DOWN, chosen), self._chosen(COMPONENT_UP, chosen)
        inner = node("MatMul", [u, down], "component.inner")
        rows = ints(0, self._components, c.tokens, 1, c.component_rank)
        inner = node("Reshape", [self._silu(inner, "component.silu"), rows], "component.rows")
        added = node("Squeeze", [node("MatMul", [inner, up], "component.added"), ints(3)], "component.own")
        return node("Transpose", [added], "component.positions", perm=[0, 2, 1, 3])

    def _chosen(self, name: str, chosen: gs.Variable | None) -> gs.Variable:
        """Weights of the computed components, [B, c, ...], or [r, ...] of all."""
        weight = self._constant(name)
        taken = self._node("Gather", [weight, chosen], f"{name}.chosen", axis=0) if chosen is not None else weight
        return self._cast(taken, str(self._weights[name].dtype), f"{name}.wide")

    def probabilities(self, v: gs.Variable) -> gs.Variable:
        """float32 [B, n, c, D]."""
        logits = self._linear(v, "unembedding.weight")
        if self._half:
            logits = self._node("Cast", [logits], "logits", to=onnx.TensorProto.FLOAT)
        return self._node("Softmax", [logits], contract.DRAFT_PROBABILITIES, axis=-1)

    @property
    def _half(self) -> bool:
        return self._dtype != "float32"

    def _constant(self, name: str) -> gs.Constant:
        return gs.Constant(name, self._weights[name])

    def _linear(self, x: gs.Variable, name: str) -> gs.Variable:
        """x times the transposed matrix [out, in] called `name`."""
        weight = gs.Constant(f"{name}_t", self._weights[name].transposed())
        return self._node("MatMul", [x, weight], f"{name.removesuffix('.weight')}.out")

    def _norm(self, x: gs.Variable, name: str) -> gs.Variable:
        scale = self._constant(f"{name}.weight")
        return self._node("RMSNormalization", [x, scale], name, axis=-1, epsilon=float(self._config.eps))

    def _silu(self, x: gs.Variable, stem: str) -> gs.Variable:
        return self._node("Mul", [x, self._node("Sigmoid", [x], f"{stem}.gate")], stem)

    def _cast(self, x: gs.Tensor, dtype: str, stem: str) -> gs.Tensor:
        """x of element type `dtype` in that of activations."""
        return x if dtype == self._dtype else self._node("Cast", [x], stem, to=_ONNX_TYPES[self._dtype])

    def _split(self, x: gs.Variable, sizes: Any, count: int, stem: str) -> list[gs.Variable]:
        first = self._node("Split", [x, sizes], stem, axis=-1)
        [split] = first.inputs
        split.outputs += [gs.Variable(f"{stem}.{i}") for i in range(1, count)]
        return list(split.outputs)
