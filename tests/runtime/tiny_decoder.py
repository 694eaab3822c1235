"""A two-layer Llama written node by node, in both forms of the cache, with the same random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit import contract

LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, FFN = 2, 4, 2, 16, 32, 48
MAX_POSITION = 2048
_MS = "com.microsoft"


class _Builder:
    def __init__(self, vocab: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.vocab = vocab
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, inputs: list[str], output: str | list[str], domain: str = "", **attributes: object) -> str:
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def weight(self, name: str, rows: int, columns: int) -> str:
        return self.constant(name, (self.rng.standard_normal((rows, columns)) / rows**0.5).astype(np.float32))

    def linear(self, x: str, name: str, rows: int, columns: int) -> str:
        return self.node("MatMul", [x, self.weight(f"{name}.w", rows, columns)], f"{name}.out")


def write_tiny_decoder(
    path: Path,
    cache_kind: str,
    *,
    vocab: int = 300,
    seed: int = 0,
    max_position: int = MAX_POSITION,
    features: bool = False,
) -> Path:
    """Write the graph; equal seeds give equal weights whatever the cache kind.

    With `features` it has the output of a decoder with draft heads: the embedding and the last residual stream.
    """
    b = _Builder(vocab, seed)
    shared = cache_kind == contract.CACHE_SHARED
    b.inputs.append(
        helper.make_tensor_value_info(
            contract.INPUT_IDS, TensorProto.INT64, [contract.AXIS_BATCH, contract.AXIS_SEQUENCE]
        )
    )
    b.inputs.append(
        helper.make_tensor_value_info(
            contract.ATTENTION_MASK, TensorProto.INT64, [contract.AXIS_BATCH, contract.AXIS_TOTAL]
        )
    )
    b.outputs.append(
        helper.make_tensor_value_info(
            contract.LOGITS, TensorProto.FLOAT, [contract.AXIS_BATCH, contract.AXIS_KEPT, vocab]
        )
    )
    before, after = (contract.AXIS_CAPACITY,) * 2 if shared else (contract.AXIS_PAST, contract.AXIS_TOTAL)
    cache = [contract.AXIS_BATCH, KV_HEADS, before, HEAD_DIM]
    for layer in range(LAYERS):
        for past, present in (
            (contract.past_name(layer, contract.KEY), contract.present_name(layer, contract.KEY)),
            (contract.past_name(layer, contract.VALUE), contract.present_name(layer, contract.VALUE)),
        ):
            b.inputs.append(helper.make_tensor_value_info(past, TensorProto.FLOAT, cache))
            b.outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, [*cache[:2], after, HEAD_DIM]))
    b.inputs.append(helper.make_tensor_value_info(contract.LOGITS_TO_KEEP, TensorProto.INT64, [1]))

    angle = np.outer(np.arange(max_position), 1e4 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)).astype(np.float32)
    b.constant("cos", np.cos(angle))
    b.constant("sin", np.sin(angle))
    b.constant("axis1", np.array([1], np.int64))
    b.constant("one", np.array([1], np.int64))
    b.constant("zero", np.array([0], np.int64))
    _positions(b, shared)
    b.constant("embedding", b.rng.standard_normal((vocab, HIDDEN)).astype(np.float32))
    b.constant("norm", np.ones(HIDDEN, np.float32))
    x = b.node("Gather", ["embedding", contract.INPUT_IDS], "x")
    for layer in range(LAYERS):
        x = _layer(b, layer, x, shared)
    # The last kept positions: slice(-keep, end), which is everything for 0.
    b.node("Neg", [contract.LOGITS_TO_KEEP], "start")
    b.constant("end", np.array([2**40], np.int64))
    x = b.node("Slice", [x, "start", "end", "axis1"], "kept")
    if features:
        shape = [contract.AXIS_BATCH, contract.AXIS_KEPT, 2 * HIDDEN]
        b.outputs.append(helper.make_tensor_value_info(contract.DRAFT_FEATURES, TensorProto.FLOAT, shape))
        first = b.node("Slice", ["x", "start", "end", "axis1"], "kept.embedding")
        b.node("Concat", [first, "kept"], contract.DRAFT_FEATURES, axis=-1)
    x = b.node("RMSNormalization", [x, "norm"], "kept.norm", axis=-1, epsilon=1e-5)
    # Not the embedding: its decoder would say the last token again and again.
    b.node("MatMul", [x, b.weight("head", HIDDEN, vocab)], contract.LOGITS)

    graph = helper.make_graph(b.nodes, "tiny", b.inputs, b.outputs, b.initializers)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(_MS, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=11), path)
    return path


def _positions(b: _Builder, shared: bool) -> None:
    if shared:
        b.node("ReduceSum", [contract.ATTENTION_MASK, "axis1"], "counted", keepdims=0)
        b.node("Sub", ["counted", "one"], "last")
        b.node("Cast", ["last"], "seqlens_k", to=TensorProto.INT32)
        b.node("Shape", [contract.ATTENTION_MASK], "total.1", start=1, end=2)
        b.node("Squeeze", ["total.1"], "total.0")
        b.node("Cast", ["total.0"], "total", to=TensorProto.INT32)
        return
    b.node("Shape", [contract.INPUT_IDS], "new", start=1, end=2)
    b.node("Shape", [contract.ATTENTION_MASK], "total", start=1, end=2)
    b.node("Sub", ["total", "new"], "past")
    b.node("CumSum", [contract.ATTENTION_MASK, "axis.cumsum"], "counted")
    b.constant("axis.cumsum", np.array(1, np.int64))
    b.node("Sub", ["counted", "one"], "places")
    b.node("Slice", ["places", "past", "total", "axis1"], "position_ids")
    # A query at position i sees the keys at positions up to i.
    b.node("Unsqueeze", ["position_ids", "axes.query"], "queries")
    b.constant("axes.query", np.array([1, 3], np.int64))
    b.node("Unsqueeze", ["places", "axes.key"], "keys")
    b.constant("axes.key", np.array([1, 2], np.int64))
    b.node("LessOrEqual", ["keys", "queries"], "causal")


def _layer(b: _Builder, layer: int, x: str, shared: bool) -> str:
    p = f"layer{layer}"
    normed = b.node("RMSNormalization", [x, "norm"], f"{p}.norm1", axis=-1, epsilon=1e-5)
    q = b.linear(normed, f"{p}.q", HIDDEN, HEADS * HEAD_DIM)
    k = b.linear(normed, f"{p}.k", HIDDEN, KV_HEADS * HEAD_DIM)
    v = b.linear(normed, f"{p}.v", HIDDEN, KV_HEADS * HEAD_DIM)
    past = [contract.past_name(layer, contract.KEY), contract.past_name(layer, contract.VALUE)]
    present = [contract.present_name(layer, contract.KEY), contract.present_name(layer, contract.VALUE)]
    outputs = [f"{p}.attention", *present]
    if shared:
        b.node(
            "GroupQueryAttention",
            [q, k, v, *past, "seqlens_k", "total", "cos", "sin"],
            outputs,
            _MS,
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
            rotary_interleaved=0,
            scale=HEAD_DIM**-0.5,
        )
    else:
        q = b.node("RotaryEmbedding", [q, "cos", "sin", "position_ids"], f"{p}.q.rotated", num_heads=HEADS)
        k = b.node("RotaryEmbedding", [k, "cos", "sin", "position_ids"], f"{p}.k.rotated", num_heads=KV_HEADS)
        b.node(
            "Attention",
            [q, k, v, "causal", *past],
            outputs,
            q_num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            scale=HEAD_DIM**-0.5,
        )
    attended = b.linear(outputs[0], f"{p}.o", HEADS * HEAD_DIM, HIDDEN)
    x = b.node("Add", [x, attended], f"{p}.residual1")
    normed = b.node("RMSNormalization", [x, "norm"], f"{p}.norm2", axis=-1, epsilon=1e-5)
    gate = b.linear(normed, f"{p}.gate", HIDDEN, FFN)
    silu = b.node("Mul", [gate, b.node("Sigmoid", [gate], f"{p}.sigmoid")], f"{p}.silu")
    up = b.linear(normed, f"{p}.up", HIDDEN, FFN)
    down = b.linear(b.node("Mul", [silu, up], f"{p}.act"), f"{p}.down", FFN, HIDDEN)
    return b.node("Add", [x, down], f"{p}.residual2")
