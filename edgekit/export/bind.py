"""Giving a traced graph its weights: each constant becomes a deferred read of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from edgekit.checkpoint import Checkpoint
from edgekit.errors import ExportError
from edgekit.models.registry import TRANSFORMS, WeightSource
from edgekit.rewrite.weights import Array, Weight


def bind_weights(
    graph: gs.Graph,
    checkpoint: Checkpoint,
    sources: dict[str, WeightSource],
    tables: dict[str, Array],
    dtype: str,
    made: Mapping[str, Weight] | None = None,
) -> int:
    """Replace the constants of a traced graph by `Weight`s; returns how many distinct tensors were bound.

    Args:
        sources: per constant the checkpoint tensor and transform it comes from.
        tables: what follows from the configuration, by constant name: rotary tables float32 [max_positions, D/2], which
            are cast, and tables of integers, which are not.
        dtype: element type of the graph.
        made: constants that come from elsewhere, by name; float32 ones are cast, others are not.

    Raises:
        ExportError: a constant has no source, or a weight of the model is not in the graph.
    """
    target = np.dtype(dtype)
    bound: set[str] = set()
    made = made or {}
    for name, tensor in graph.tensors().items():
        if not isinstance(tensor, gs.Constant) or not isinstance(tensor._values, LazyValues):
            continue
        if name in made:
            tensor._values = made[name].cast(target) if made[name].dtype == np.float32 else made[name]
        elif name in sources:
            tensor._values = checkpoint_weight(checkpoint, sources[name]).cast(target)
        elif name in tables:
            table = Weight(tables[name].shape, tables[name].dtype, _value(tables[name]), name)
            tensor._values = table.cast(target) if np.issubdtype(table.dtype, np.floating) else table
        elif _holds_data(tensor._values):
            continue  # a small constant made by tracing itself
        else:
            raise ExportError(
                "every constant of the traced graph must come from the checkpoint",
                f"'{name}' {list(tensor._values.shape)} has no source",
                "make it a parameter or a table of the model",
            )
        bound.add(name)
    if missing := sorted({*sources, *made} - bound):
        raise ExportError(
            "every weight of the model must be used by its graph",
            f"{len(missing)} are not: {', '.join(missing[:5])}",
            "the model's forward does not use them; check the model file",
        )
    return len(bound)


def checkpoint_weight(checkpoint: Checkpoint, source: WeightSource) -> Weight:
    """A checkpoint tensor as a deferred float32 constant, its transform applied."""
    shape = checkpoint.spec(source.name).shape
    transform = TRANSFORMS[source.transform] if source.transform else None

    def load() -> Array:
        array: Any = checkpoint.array(source.name)
        if transform is not None:
            array = transform(array)
        return np.asarray(array, dtype=np.float32)

    weight = Weight(shape, np.float32, load, ("checkpoint", source.name, source.transform))
    weight.sources = (source.name,)
    return weight


def _value(array: Array) -> Any:
    return lambda: array


def _holds_data(values: LazyValues) -> bool:
    tensor = values.tensor
    return tensor is not None and not tensor.external_data
