"""What every export writes beside and into a bundle: the model file, JSON, and parts of the manifest."""

from __future__ import annotations

import json
import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from edgekit import contract
from edgekit.checkpoint import Checkpoint
from edgekit.export.write import DATA_FILE, MODEL_FILE, check_model, write_model
from edgekit.progress import Progress

_TRACED_WITH = ("torch", "onnx", "onnxscript", "onnx-graphsurgeon", "numpy")


def write_graph(graph: gs.Graph, folder: Path, progress: Progress, *, standard: bool) -> onnx.ModelProto:
    """Write the model; forms without onnxruntime's own operators must also pass the ONNX checker."""

    def written(done: int, total: int) -> None:
        if done == 0:
            progress.stage("write", total, "tensors")
        else:
            progress.advance()

    structure = write_model(graph, folder, written)
    if standard:
        check_model(folder / MODEL_FILE)
    return structure


def graph_record(structure: onnx.ModelProto, taps: list[str]) -> dict[str, Any]:
    """The manifest's "graph"."""
    return {
        "file": MODEL_FILE,
        "data": [DATA_FILE],
        "opset": next(entry.version for entry in structure.opset_import if not entry.domain),
        "inputs": [_signature(value) for value in structure.graph.input],
        "outputs": [_signature(value) for value in structure.graph.output],
        "taps": taps,
    }


def operators_record(structure: onnx.ModelProto) -> list[dict[str, Any]]:
    """The manifest's "operators": the custom ones of a graph: name, version and number of nodes."""
    version = {entry.domain: entry.version for entry in structure.opset_import}
    counted = Counter(node.op_type for node in structure.graph.node if node.domain == contract.OPERATOR_DOMAIN)
    return [
        {"name": name, "version": version[contract.OPERATOR_DOMAIN], "nodes": nodes}
        for name, nodes in sorted(counted.items())
    ]


def provenance_record(checkpoint: Checkpoint) -> dict[str, Any]:
    """The manifest's "provenance": what the bundle was made from."""
    return {
        "checkpoint": {
            "path": checkpoint.path.name,
            "location": str(checkpoint.path.absolute()),
            "format": checkpoint.format,
            "files": checkpoint.files(),
        }
    }


def versions_record() -> dict[str, str]:
    """The manifest's "versions": what the graph was traced with."""
    return {**{name: version(name) for name in _TRACED_WITH}, "python": platform.python_version()}


def model_name(checkpoint: Checkpoint) -> str:
    """What a model is called that was given no name."""
    return checkpoint.path.stem if checkpoint.path.is_file() else checkpoint.path.absolute().name


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write an indented JSON file with a final newline."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _signature(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [axis.dim_param or axis.dim_value for axis in tensor.shape.dim],
    }
