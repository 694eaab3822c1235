from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.errors import BundleError, DoesNotFit, SessionError
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.ort_cache import FIRST_CAPACITY, SharedCache
from edgekit.runtime.ort_session import OrtSession
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.session import DecoderSession
from tests.runtime.tiny_decoder import HEAD_DIM, KV_HEADS, LAYERS

TOLERANCE = 2e-4
TOKENS = np.random.default_rng(0).integers(0, 300, (1, 600))


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=0)


def reopened(session: OrtSession, graphs: dict[str, Path], kind: str, **arguments: Any) -> OrtSession:
    return OrtSession(graphs[kind], cache_kind=kind, **{"capacity_limit": 2048, "threads": 1, **arguments})


def test_it_is_a_decoder_session(session: OrtSession) -> None:
    checked: DecoderSession = session
    assert checked.capacity == 2048
    assert checked.length == 0
    assert checked.name == "onnxruntime-cpu"
    assert "CPUExecutionProvider" in checked.description
    assert "1 thread" in checked.description


def test_both_kinds_of_cache_agree(tiny_graphs: dict[str, Path]) -> None:
    logits = {
        kind: OrtSession(path, cache_kind=kind, capacity_limit=2048, threads=1).forward(TOKENS, keep=0)
        for kind, path in tiny_graphs.items()
    }
    close(logits[contract.CACHE_SHARED], logits[contract.CACHE_CONCAT])


@pytest.mark.parametrize("keep", [0, 1, 2, 7, 8, 100])
def test_kept_positions_are_the_last_ones(session: OrtSession, keep: int) -> None:
    whole = session.forward(TOKENS[:, :8], keep=0)
    session.reset()
    kept = session.forward(TOKENS[:, :8], keep=keep)
    count = min(keep, 8) if keep else 8
    close(kept, whole[:, -count:])
    # What was asked last must not linger.
    assert session.forward(TOKENS[:, 8:9]).shape == (1, 1, 300)
    assert session.forward(TOKENS[:, 9:12]).shape == (1, 1, 300)


@pytest.mark.parametrize("cuts", [[1], [1, 2, 3], [5, 250], [255, 256, 257], [511, 512, 513]])
def test_pieces_give_what_the_whole_gives(session: OrtSession, cuts: list[int]) -> None:
    whole = session.forward(TOKENS, keep=0)
    session.reset()
    pieces = [session.forward(np.ascontiguousarray(piece), keep=0) for piece in np.split(TOKENS, cuts, axis=1)]
    close(np.concatenate(pieces, axis=1), whole)


def test_single_steps_give_what_the_whole_gives(session: OrtSession) -> None:
    whole = session.forward(TOKENS[:, :40], keep=0)
    session.reset()
    steps = [session.forward(TOKENS[:, i : i + 1]) for i in range(40)]
    close(np.concatenate(steps, axis=1), whole)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 540])
def test_rollback_gives_what_a_fresh_session_gives(session: OrtSession, length: int) -> None:
    session.forward(TOKENS[:, :540])
    session.rollback(length)
    assert session.length == length
    other = TOKENS[:, 300:340]
    after = session.forward(other, keep=0)
    session.reset()
    fresh = session.forward(np.concatenate([TOKENS[:, :length], other], axis=1), keep=40)
    close(after, fresh)


def test_reset_gives_what_a_fresh_session_gives(session: OrtSession) -> None:
    first = session.forward(TOKENS[:, :20], keep=0)
    session.forward(TOKENS[:, 20:300])
    session.reset()
    assert session.length == 0
    assert np.array_equal(session.forward(TOKENS[:, :20], keep=0), first)


def test_logits_belong_to_the_caller(session: OrtSession) -> None:
    first = session.forward(TOKENS[:, :3])
    copy = first.copy()
    session.forward(TOKENS[:, 3:4])
    assert np.array_equal(first, copy)


def test_tokens_are_left_alone_and_need_not_be_contiguous(session: OrtSession) -> None:
    tokens = TOKENS[:, :20].copy()
    want = session.forward(tokens[:, ::2].copy(), keep=0)
    session.reset()
    assert np.array_equal(session.forward(tokens[:, ::2], keep=0), want)
    assert np.array_equal(tokens, TOKENS[:, :20])


def test_a_batch(session: OrtSession) -> None:
    rows = TOKENS[:, :60].reshape(3, 20)
    alone = []
    for row in rows:
        session.reset()
        alone.append(session.forward(row[None], keep=0))
    session.reset()
    together = session.forward(rows, keep=0)
    close(together, np.concatenate(alone))
    step = session.forward(rows[:, :1])
    assert step.shape == (3, 1, 300)
    session.reset()
    close(session.forward(rows[:1], keep=0), alone[0])


def test_caches_can_be_looked_at(session: OrtSession) -> None:
    assert len(session.caches()) in (0, LAYERS)
    session.forward(TOKENS[:, :30])
    caches = session.caches()
    assert len(caches) == LAYERS
    assert {array.shape for layer in caches for array in layer.values()} == {(1, KV_HEADS, 30, HEAD_DIM)}
    session.rollback(10)
    session.forward(TOKENS[:, 10:12])
    for now, earlier in zip(session.caches(), caches, strict=True):
        assert list(now) == ["key", "value"]
        for suffix, tensor in now.items():
            assert tensor.shape[2] == 12
            close(tensor[:, :, :10], earlier[suffix][:, :, :10])


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


def poison(session: OrtSession) -> None:
    """Fill the buffers beyond the tokens with NaN."""
    cache = session._cache
    assert isinstance(cache, SharedCache)
    assert cache.buffers
    for buffer in cache.buffers:
        array = buffer.numpy()
        array[:, :, session.length :] = np.nan
        buffer.update_inplace(array)
        assert np.isnan(buffer.numpy()[:, :, session.length :]).all()


def test_memory_beyond_the_tokens_is_never_read(tiny_graphs: dict[str, Path]) -> None:
    def run(poisoned: bool) -> list[np.ndarray]:
        session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
        found = []
        for start, end in ((0, 7), (7, 8), (8, 9), (9, 40), (40, 41), (41, 600)):
            found.append(session.forward(TOKENS[:, start:end], keep=0))
            if poisoned:
                poison(session)
        session.rollback(5)
        if poisoned:
            poison(session)
        found.append(session.forward(TOKENS[:, 9:30], keep=0))
        return found

    for clean, poisoned in zip(run(False), run(True), strict=True):
        assert np.array_equal(clean, poisoned)


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


def test_the_context_is_the_smaller_of_what_is_asked_and_allowed(tiny_graphs: dict[str, Path], kind: str) -> None:
    session = reopened(None, tiny_graphs, kind, capacity=16)  # type: ignore[arg-type]
    assert session.capacity == 16
    session.forward(TOKENS[:, :16])
    with pytest.raises(SessionError) as caught:
        session.forward(TOKENS[:, :1])
    assert "16" in caught.value.fact
    assert session.length == 16
    for wrong in (0, -1, 2049):
        with pytest.raises(SessionError) as caught:
            reopened(session, tiny_graphs, kind, capacity=wrong)
        assert str(wrong) in caught.value.fact
        assert "2048" in caught.value.fact


@pytest.mark.parametrize(
    ("tokens", "keep", "fact"),
    [
        (np.zeros((1, 0), np.int64), 1, "[1, 0]"),
        (np.zeros((0, 1), np.int64), 1, "[0, 1]"),
        (np.zeros(3, np.int64), 1, "[3]"),
        (np.zeros((1, 1), np.int32), 1, "int32"),
        (np.array([[300]]), 1, "300"),
        (np.array([[-1]]), 1, "-1"),
        (np.zeros((2, 1), np.int64), 1, "it was 1, now it is 2"),
        (np.zeros((1, 1), np.int64), -1, "-1"),
        (np.zeros((1, 2049), np.int64), 1, "2048"),
    ],
)
def test_malformed_calls_are_refused_and_change_nothing(
    session: OrtSession, tokens: np.ndarray, keep: int, fact: str
) -> None:
    session.forward(TOKENS[:, :5])
    with pytest.raises(SessionError) as caught:
        session.forward(tokens, keep)
    assert fact in caught.value.fact
    assert session.length == 5
    after = session.forward(TOKENS[:, 5:9], keep=0)
    session.reset()
    close(after, session.forward(TOKENS[:, :9], keep=4))


@pytest.mark.parametrize("length", [-1, 6])
def test_rollback_forward_is_refused(session: OrtSession, length: int) -> None:
    session.forward(TOKENS[:, :5])
    with pytest.raises(SessionError, match="go back"):
        session.rollback(length)
    assert session.length == 5


def test_a_closed_session_is_refused(session: OrtSession) -> None:
    session.forward(TOKENS[:, :5])
    session.close()
    assert session.length == 0
    with pytest.raises(SessionError, match="closed"):
        session.forward(TOKENS[:, :1])
    session.close()


def test_an_error_of_the_engine_leaves_the_cache(tiny_graphs: dict[str, Path]) -> None:
    """GroupQueryAttention refuses several tokens after a past when the batch is larger than 1."""
    session = OrtSession(tiny_graphs["shared"], cache_kind="shared", capacity_limit=2048, threads=1)
    rows = TOKENS[:, :60].reshape(3, 20)
    session.forward(rows)
    with pytest.raises(SessionError, match="process 2 tokens after 20"):
        session.forward(rows[:, :2])
    assert session.length == 20
    assert session.forward(rows[:, :1]).shape == (3, 1, 300)


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


class Numbers:
    def decode(self, ids: list[int]) -> str:
        return "".join(f"{token} " for token in ids)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_a_generation_with_reuse_is_a_fresh_one(session: OrtSession, chunk: int) -> None:
    """The whole loop over the real engine: chunks, prefix reuse and rollback change no token."""
    options = GenerationOptions(max_new_tokens=12, prompt_chunk=chunk)

    def end(*arguments: Any) -> Finished:
        event = list(generate(*arguments, options))[-1]
        assert isinstance(event, Finished)
        return event

    cache = PrefixCache(session)
    first = end(cache, Numbers(), TOKENS[0, :50].tolist())
    prompt = [*TOKENS[0, :50].tolist(), *first.tokens[:8], *TOKENS[0, 50:60].tolist()]
    reused = end(cache, Numbers(), prompt)
    assert reused.statistics.reused_tokens == 58
    assert reused.tokens == end(session, Numbers(), prompt).tokens
