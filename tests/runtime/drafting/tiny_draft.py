"""A draft graph written node by node: two linear layers with softmax, over features, token and noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit import contract

FEATURES, TOKENS, RANK, VOCABULARY = 6, 3, 4, 10


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "mix": rng.standard_normal((FEATURES, RANK)).astype(np.float32),
        "heads": rng.standard_normal((FEATURES, TOKENS * RANK * VOCABULARY)).astype(np.float32),
        "scale": np.array(0.1, np.float32),
        "shape": np.array([0, TOKENS, RANK, VOCABULARY]),
        "column": np.array([1]),
    }


def write_tiny_draft(path: Path, components: int | None = None, **changed: Any) -> Path:
    """Write the graph; with `components`, only those of the largest log weight and noise are kept.

    Args:
        changed: in place of the element type of an input, by its name.
    """
    kept = components or RANK
    truncated = components is not None
    mixed = "chosen" if truncated else "mixed"
    nodes = [
        helper.make_node("Cast", [contract.DRAFT_TOKEN], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "column"], ["row"]),
        helper.make_node("Mul", ["row", "scale"], ["scaled"]),
        helper.make_node("Add", [contract.DRAFT_FEATURES, "scaled"], ["u"]),
        helper.make_node("MatMul", ["u", "mix"], ["mixed"]),
        helper.make_node("LogSoftmax", [mixed], [contract.DRAFT_LOG_WEIGHTS], axis=-1),
        helper.make_node("MatMul", ["u", "heads"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["scores"]),
    ]
    constants = arrays()
    if truncated:
        constants |= {"k": np.array([kept]), "axes": np.array([1, 3])}
        nodes[5:5] = [
            helper.make_node("Add", ["mixed", contract.DRAFT_NOISE], ["noisy"]),
            helper.make_node("TopK", ["noisy", "k"], ["largest", "indices"], axis=-1),
            helper.make_node("GatherElements", ["mixed", "indices"], ["chosen"], axis=-1),
        ]
        constants |= {"wide": np.array([1, TOKENS, 1, VOCABULARY])}
        nodes += [
            helper.make_node("Unsqueeze", ["indices", "axes"], ["narrow"]),
            helper.make_node("Expand", ["narrow", "wide"], ["everywhere"]),
            helper.make_node("GatherElements", ["scores", "everywhere"], ["selected"], axis=2),
        ]
    nodes.append(
        helper.make_node("Softmax", ["selected" if truncated else "scores"], [contract.DRAFT_PROBABILITIES], axis=-1)
    )
    types = {contract.DRAFT_FEATURES: TensorProto.FLOAT, contract.DRAFT_TOKEN: TensorProto.INT64} | changed
    batch = contract.AXIS_BATCH
    inputs = [
        helper.make_tensor_value_info(contract.DRAFT_FEATURES, types[contract.DRAFT_FEATURES], [batch, FEATURES]),
        helper.make_tensor_value_info(contract.DRAFT_TOKEN, types[contract.DRAFT_TOKEN], [batch]),
    ]
    if truncated:
        inputs.append(helper.make_tensor_value_info(contract.DRAFT_NOISE, TensorProto.FLOAT, [batch, RANK]))
    outputs = [
        helper.make_tensor_value_info(contract.DRAFT_LOG_WEIGHTS, TensorProto.FLOAT, [batch, kept]),
        helper.make_tensor_value_info(
            contract.DRAFT_PROBABILITIES, TensorProto.FLOAT, [batch, TOKENS, kept, VOCABULARY]
        ),
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "draft", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def expected(features: np.ndarray, token: np.ndarray, noise: np.ndarray | None, kept: int) -> tuple[np.ndarray, ...]:
    """Log weights and probabilities, in double precision."""
    given = {name: array.astype(np.float64) for name, array in arrays().items()}
    u = features + token[:, None] * given["scale"]
    mixed = u @ given["mix"]
    scores = (u @ given["heads"]).reshape(-1, TOKENS, RANK, VOCABULARY)
    if noise is not None:
        indices = np.argsort(-(mixed + noise), axis=-1)[:, :kept]
        mixed = np.take_along_axis(mixed, indices, -1)
        scores = np.stack([row[:, chosen] for row, chosen in zip(scores, indices, strict=True)])
    return mixed - np.log(np.exp(mixed).sum(-1, keepdims=True)), np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
