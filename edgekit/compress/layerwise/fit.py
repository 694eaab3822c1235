"""One layer's matrices, from its measurements to a file of pieces. The same wherever it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.safetensors_write import planned, write_safetensors
from edgekit.compress.layerwise.calibrate import metric_of
from edgekit.compress.layerwise.plan import settings_from
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.decompose import compress_matrix
from edgekit.errors import ExportError

RECORDS = "records"


@dataclass(frozen=True)
class Work:
    """A matrix to fit: its name, a method, most bytes, and settings as a plan has them."""

    matrix: str
    method: str
    nbytes: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class LayerJob:
    """A layer to fit. Paths are those of a file system that whoever does the job shares.

    Attributes:
        checkpoint: its directory or file.
        statistics: the folder of the measurements.
        result: the file to write; one that is there is taken for done.
    """

    checkpoint: str
    statistics: str
    layer: int
    works: tuple[Work, ...]
    result: str


def fit_layer(job: LayerJob) -> int:
    """Fit and write, on one thread, so that the result does not depend on how many there are. Returns the layer."""
    result = Path(job.result)
    if result.is_file():
        return job.layer
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        checkpoint = open_checkpoint(Path(job.checkpoint))
        fitted = {}
        for work in job.works:
            weight = torch.from_numpy(np.array(checkpoint.array(work.matrix), dtype=np.float32))
            measured = metric_of(Path(job.statistics), job.layer, work.matrix, weight)
            settings = settings_from(work.settings)
            try:
                found = compress_matrix(weight, work.method, budget=work.nbytes, measured=measured, settings=settings)
            except ExportError as error:
                raise ExportError(f"{work.matrix}: {error.rule}", error.fact, error.next_step) from error
            fitted[work.matrix] = found
    finally:
        torch.set_num_threads(before)
    write_part(result, fitted)
    return job.layer


def write_part(path: Path, fitted: Mapping[str, CompressedMatrix]) -> None:
    """Matrices by name, in a file of their own."""
    records = {name: {**matrix.record(), "bytes": matrix.nbytes} for name, matrix in fitted.items()}
    arrays = [planned(f"{name}/{key}", array) for name, m in fitted.items() for key, array in m.arrays().items()]
    write_safetensors(path, arrays, {RECORDS: json.dumps(records)})


def records_of(path: Path) -> dict[str, dict[str, Any]]:
    """What a part's file says of its matrices."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        found: dict[str, dict[str, Any]] = json.loads(file.metadata()[RECORDS])
    return found
