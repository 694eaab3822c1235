"""A compressed model in the layout of Saten's training code: tm_params.pth, and the other weights beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.safetensors_write import write_safetensors
from edgekit.checkpoint.tm_params import FILE
from edgekit.compress.layerwise.fit import records_of
from edgekit.compress.layerwise.options import weight_names
from edgekit.compress.layerwise.write import WEIGHTS, plain, write_rest
from edgekit.compress.saten.compressed import CompressedMatrix, compressed_from
from edgekit.compress.saten.factorisation import Factorisation
from edgekit.compress.saten.pieces import Pair, Train
from edgekit.compress.saten.sparse_format import Sparse
from edgekit.compress.saten.tensor_train import TensorTrain
from edgekit.compress.saten.tm_params import TrainedLayer, write_tm_params
from edgekit.errors import ExportError


def write_tm_directory(folder: Path, checkpoint: Checkpoint, parts: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Write the directory from files of `edgekit.compress.layerwise.fit`; returns the records of all matrices.

    Holds all residuals as dense float32 matrices, as the layout has them.
    """
    records: dict[str, dict[str, Any]] = {}
    layers: dict[str, TrainedLayer] = {}
    for part in parts:
        own, arrays = records_of(part), load_file(part)
        records.update(own)
        for name, record in own.items():
            found = {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
            layers[name.removesuffix(".weight")] = trained_layer(compressed_from(record, found))
    write_tm_params(folder / FILE, layers)
    names = [name for name in weight_names(checkpoint) if name not in records]
    write_safetensors(folder / WEIGHTS, [plain(checkpoint, name) for name in names])
    write_rest(folder, checkpoint, checkpoint.config)
    return records


def trained_layer(matrix: CompressedMatrix) -> TrainedLayer:
    """A matrix of factors and single weights in that layout; a pair is a train of order 2.

    Raises:
        ExportError: it has no factors, or a base.
    """
    rows, columns = matrix.shape
    pieces = {type(piece): piece for piece in matrix.pieces}
    factors, kept = pieces.pop(Pair, None) or pieces.pop(Train, None), pieces.pop(Sparse, None)
    if factors is None or pieces:
        raise ExportError(
            "tm_params holds tensor trains and residuals", f"{matrix.method} made another form", "leave --format out"
        )
    if isinstance(factors, Train):
        train = factors.train()
    else:
        assert isinstance(factors, Pair)
        first = torch.from_numpy(factors.inputs.values().T.copy())[None]
        train = TensorTrain(
            Factorisation((columns,), (rows,)), (first, torch.from_numpy(factors.outputs.values())[..., None])
        )
    residual, mask = torch.zeros(rows, columns), torch.zeros(rows, columns, dtype=torch.bool)
    if kept is not None:
        assert isinstance(kept, Sparse)
        residual, mask = torch.from_numpy(kept.dense()), torch.from_numpy(kept.positions.mask())
    return TrainedLayer(train, residual, mask)
