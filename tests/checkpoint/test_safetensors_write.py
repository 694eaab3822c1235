"""Files written tensor by tensor, read by the safetensors library."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from edgekit.checkpoint.safetensors_write import Planned, planned, write_safetensors


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 5)).astype(np.float32),
        "b": rng.normal(size=7).astype(np.float16),
        "codes/0": rng.integers(0, 255, (2, 3, 4)).astype(np.uint8),
        "columns": rng.integers(0, 60000, 9).astype(np.uint16),
        "nothing": np.zeros((0, 4), np.float32),
        "half": rng.normal(size=(2, 2)).astype(ml_dtypes.bfloat16),
    }
    write_safetensors(tmp_path / "file", [planned(name, array) for name, array in arrays.items()], {"what": "ever"})
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "what": "ever"}
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name).float().numpy(), array.astype(np.float32))


def test_a_tensor_that_is_not_what_was_planned_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(AssertionError, match="made otherwise"):
        write_safetensors(path, [Planned("a", "float32", (2,), lambda: np.zeros(3, np.float32))])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
