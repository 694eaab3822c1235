"""What lies in the data file: each weight once, on a page, as ONNX packs it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from edgekit.contract import FORM_ORT
from edgekit.export.write import ALIGNMENT, DATA_FILE, INLINE_BYTES, MODEL_FILE, packed_bytes, write_model
from edgekit.rewrite.weights import Weight
from tests.rewrite.tiny_graphs import Forms


def constant(name: str, values: np.ndarray, key: str | None = None) -> gs.Constant:
    return gs.Constant(name, Weight(values.shape, values.dtype, lambda: values, key))


def graph(*constants: gs.Constant) -> gs.Graph:
    """Each constant read by a node of its own."""
    outputs = [gs.Variable(f"out{i}", np.float32) for i in range(len(constants))]
    nodes = [gs.Node("Identity", inputs=[c], outputs=[out]) for c, out in zip(constants, outputs, strict=True)]
    return gs.Graph(nodes, outputs=outputs, opset=23, ir_version=10)


def places(folder: Path) -> dict[str, tuple[int, int]]:
    """Name → (offset, length) of what is in the data file."""
    model = onnx.load(folder / MODEL_FILE, load_external_data=False)
    found = {}
    for value in model.graph.initializer:
        entries = {entry.key: entry.value for entry in value.external_data}
        if entries:
            assert entries["location"] == DATA_FILE
            found[value.name] = (int(entries["offset"]), int(entries["length"]))
    return found


def big(seed: int, count: int = 700) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    arrays = {
        "a": big(0),
        "b": big(1, 5000).reshape(50, 100),
        "c": big(2).astype(np.float16),
        "d": np.ones(3, np.int64),
    }
    write_model(graph(*(constant(name, values, name) for name, values in arrays.items())), tmp_path)
    read = {value.name: numpy_helper.to_array(value) for value in onnx.load(tmp_path / MODEL_FILE).graph.initializer}
    assert set(read) == set(arrays)
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype
        assert np.array_equal(read[name], values)


def test_weights_start_on_a_page(tmp_path: Path) -> None:
    write_model(graph(*(constant(f"w{i}", big(i, 1500), f"w{i}") for i in range(3))), tmp_path)
    found = places(tmp_path)
    assert sorted(found.values()) == [(0, 6000), (2 * ALIGNMENT, 6000), (4 * ALIGNMENT, 6000)]


def test_equal_keys_are_stored_and_made_once(tmp_path: Path) -> None:
    made = []

    def load() -> np.ndarray:
        made.append(1)
        return big(0)

    twice = [gs.Constant(name, Weight((700,), np.float32, load, "same")) for name in ("a", "b")]
    write_model(graph(*twice, constant("c", big(0), "other")), tmp_path)
    found = places(tmp_path)
    assert found["a"] == found["b"] != found["c"]
    assert len(made) == 1
    assert (tmp_path / DATA_FILE).stat().st_size == ALIGNMENT + 2800


def test_small_constants_stay_in_the_model(tmp_path: Path) -> None:
    small, large = INLINE_BYTES // 4 - 1, INLINE_BYTES // 4
    write_model(graph(constant("small", big(0, small)), constant("large", big(1, large))), tmp_path)
    assert set(places(tmp_path)) == {"large"}


def test_progress_counts_from_none_to_all(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    made = graph(constant("a", big(0)), constant("b", np.ones(2, np.float32)))
    write_model(made, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("count", [8, 7, 1])
@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
def test_4_bit_integers_are_packed_as_onnx_packs_them(dtype: type, count: int) -> None:
    start = -8 if dtype == ml_dtypes.int4 else 0
    values = (np.arange(count) * 5 % 16 + start).astype(dtype)
    assert bytes(packed_bytes(values)) == numpy_helper.from_array(values).raw_data
    assert len(packed_bytes(values)) == (count + 1) // 2


def test_4_bit_matrices_are_read_again(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-8, 8, (64, 40)).astype(ml_dtypes.int4)
    write_model(graph(constant("codes", values)), tmp_path)
    (read,) = onnx.load(tmp_path / MODEL_FILE).graph.initializer
    assert places(tmp_path)["codes"] == (0, 64 * 40 // 2)
    assert np.array_equal(numpy_helper.to_array(read).astype(np.int8), values.astype(np.int8))


def test_a_tied_embedding_is_in_the_file_once(forms: Forms) -> None:
    form = forms.form("llama", FORM_ORT)
    config = forms.checkpoint("llama").config
    table = 4 * config["vocab_size"] * config["hidden_size"]
    found = places(form.folder)
    assert [length for _, length in found.values()].count(table) == 1
    total = sum(4 * forms.checkpoint("llama").array(name).size for name in forms.checkpoint("llama").names())
    pages = ALIGNMENT * len(found)
    assert (form.folder / DATA_FILE).stat().st_size < total + pages
