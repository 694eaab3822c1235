from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.errors import BundleError, DoesNotFit, SessionError
from edgekit.runtime.ort_cache import FIRST_CAPACITY, SharedCache
from edgekit.runtime.ort_session import OrtSession

TOLERANCE = 2e-4
TOKENS = np.random.default_rng(0).integers(0, 300, (1, 600))


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=0)


def test_both_kinds_of_cache_agree(tiny_graphs: dict[str, Path]) -> None:
    logits = {
        kind: OrtSession(path, cache_kind=kind, capacity_limit=2048, threads=1).forward(TOKENS, keep=0)
        for kind, path in tiny_graphs.items()
    }
    close(logits[contract.CACHE_SHARED], logits[contract.CACHE_CONCAT])


def test_caches_of_both_kinds_agree(tiny_graphs: dict[str, Path]) -> None:
    found = []
    for kind, path in tiny_graphs.items():
        session = OrtSession(path, cache_kind=kind, capacity_limit=2048, threads=1)
        session.forward(TOKENS[:, :30])
        session.forward(TOKENS[:, 30:33])
        found.append(session.caches())
    for one, other in zip(*found, strict=True):
        close(one["key"], other["key"])
        close(one["value"], other["value"])


def test_shared_buffers_grow_with_the_chat(tiny_graphs: dict[str, Path]) -> None:
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2000, threads=1)
    cache = session._cache
    assert isinstance(cache, SharedCache)
    tokens = np.zeros((1, 1), np.int64)
    sizes = []
    for target in (1, FIRST_CAPACITY, FIRST_CAPACITY + 1, 1025, 2000):
        session.forward(np.repeat(tokens, target - session.length, axis=1))
        sizes.append(cache.allocated)
    assert sizes == [FIRST_CAPACITY, FIRST_CAPACITY, 1024, 2000, 2000]
    before = [buffer.data_ptr() for buffer in cache.buffers]
    session.reset()
    session.forward(tokens)
    assert [buffer.data_ptr() for buffer in cache.buffers] == before, "a reset keeps the memory"


@pytest.mark.parametrize("before", [0, 400])
def test_running_out_of_memory_while_growing_loses_no_token(
    tiny_graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
    want = session.forward(TOKENS, keep=0)
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
    if before:
        session.forward(TOKENS[:, :before])
    real, calls = np.zeros, iter(range(100))

    def zeros(*arguments: Any, **options: Any) -> np.ndarray:
        if next(calls) == 2:
            raise MemoryError("Unable to allocate 1 GiB")
        return real(*arguments, **options)

    monkeypatch.setattr("edgekit.runtime.ort_cache.np.zeros", zeros)
    with pytest.raises(DoesNotFit, match="1 GiB"):
        session.forward(TOKENS[:, before:])
    assert session.length == before
    close(session.forward(TOKENS[:, before:], keep=0), want[:, before:])


def test_present_is_written_where_past_is(tiny_graphs: dict[str, Path]) -> None:
    """The point of shared buffers: a step of one token changes one row of the buffer and moves none."""
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
    session.forward(TOKENS[:, :10])
    before = [buffer.numpy().copy() for buffer in session._cache.buffers]  # type: ignore[attr-defined]
    session.forward(TOKENS[:, 10:11])
    after = [buffer.numpy() for buffer in session._cache.buffers]  # type: ignore[attr-defined]
    for old, new in zip(before, after, strict=True):
        assert set(np.nonzero((old != new).any(axis=(0, 1, 3)))[0]) == {10}


def test_an_error_of_the_engine_leaves_the_cache(tiny_graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupQueryAttention refuses several tokens after a past when the batch is larger than 1."""
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
    rows = TOKENS[:, :60].reshape(3, 20)
    session.forward(rows)
    monkeypatch.setattr(session, "_one_text", False)
    with pytest.raises(SessionError, match="process 2 tokens after 20"):
        session.forward(rows[:, :2])
    assert session.length == 20
    assert session.forward(rows[:, :1]).shape == (3, 1, 300)


def test_blocks_of_several_texts_are_refused_before_the_engine_does(tiny_graphs: dict[str, Path]) -> None:
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
    rows = TOKENS[:, :60].reshape(3, 20)
    session.forward(rows)
    with pytest.raises(SessionError) as caught:
        session.forward(rows[:, :2])
    assert "3 texts, and 2 tokens of each follow 20" in caught.value.fact
    assert session.length == 20
    growing = OrtSession(tiny_graphs["concat"], cache_kind="concat", capacity_limit=2048, threads=1)
    growing.forward(rows)
    assert growing.forward(rows[:, :2]).shape == (3, 1, 300)


def edited(path: Path, target: Path, edit: Any) -> Path:
    model = onnx.load(path)
    edit(model.graph)
    onnx.save(model, target)
    return target


def keep_one_by_default(graph: onnx.GraphProto) -> None:
    """Give the input a default: a runner that leaves it out would get other logits than one that sets it."""
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), contract.LOGITS_TO_KEEP))


def keep_one_always(graph: onnx.GraphProto) -> None:
    kept = [value for value in graph.input if value.name != contract.LOGITS_TO_KEEP]
    del graph.input[:]
    graph.input.extend(kept)
    keep_one_by_default(graph)


def rename_logits(graph: onnx.GraphProto) -> None:
    graph.output[0].name = graph.node[-1].output[0] = "scores"


def widen_cache(graph: onnx.GraphProto) -> None:
    past = next(value for value in graph.input if value.name == contract.past_name(0, contract.KEY))
    past.type.tensor_type.shape.dim[3].dim_param = "D"


def add_input(graph: onnx.GraphProto) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("adapter", onnx.TensorProto.FLOAT, [1]))
    graph.node.append(onnx.helper.make_node("Identity", ["adapter"], ["unused"]))


@pytest.mark.parametrize(
    ("edit", "fact"),
    [
        (keep_one_always, "lacks num_logits_to_keep"),
        (keep_one_by_default, "lacks num_logits_to_keep"),
        (rename_logits, "lacks logits"),
        (widen_cache, "past_key_values.0.key has shape"),
        (add_input, "more inputs: adapter"),
    ],
)
def test_graphs_of_another_contract_are_refused(
    tiny_graphs: dict[str, Path], tmp_path: Path, kind: str, edit: Any, fact: str
) -> None:
    path = edited(tiny_graphs[kind], tmp_path / "other.onnx", edit)
    with pytest.raises(BundleError) as caught:
        OrtSession(path, cache_kind=kind, capacity_limit=16, threads=1)
    assert fact in caught.value.fact
    assert "other.onnx" in caught.value.fact


def test_an_unknown_kind_of_cache_is_refused(tiny_graphs: dict[str, Path]) -> None:
    with pytest.raises(BundleError) as caught:
        OrtSession(tiny_graphs["shared"], cache_kind="paged", capacity_limit=16)
    assert "'paged'" in caught.value.fact
