"""The TensorRT session's own bookkeeping, over fakes of CUDA and TensorRT. What it computes: see test_sessions.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import contract
from edgekit.build.profile import decoder_axes
from edgekit.errors import BundleError, DoesNotFit, SessionError
from edgekit.runtime.trt_session import TrtSession
from tests.runtime.fake_cuda import LAUNCH_FAILURE, OUT_OF_MEMORY
from tests.runtime.fake_tensorrt import FakeContext
from tests.runtime.subjects import MOST_NEW, ExportedSubject, FakeTrtSubject
from tests.runtime.test_ort_session import add_input, edited, rename_logits, widen_cache
from tests.runtime.tiny_decoder import LAYERS

TOKENS = np.random.default_rng(0).integers(0, 300, (1, 600))
PASTS = 2 * LAYERS


@pytest.fixture
def fake(tiny_graphs: dict[str, Path], kind: str) -> FakeTrtSubject:
    return FakeTrtSubject(tiny_graphs, kind)


def context_of(fake: FakeTrtSubject, most_new: int) -> FakeContext:
    """The context whose profile takes so many new tokens."""
    for context in fake.engine.contexts:
        assert context.profile is not None
        if fake.engine.axes[context.profile][contract.AXIS_SEQUENCE].largest == most_new:
            return context
    raise AssertionError("there is no such context")


def test_prompts_and_steps_have_a_profile_each(fake: FakeTrtSubject) -> None:
    session = fake.open()
    assert not fake.engine.contexts, "a context is made when it is used"
    session.forward(TOKENS[:, :20])
    assert [context.profile for context in fake.engine.contexts] == [0]
    for i in range(20, 25):
        session.forward(TOKENS[:, i : i + 1])
    assert context_of(fake, MOST_NEW).runs == 1
    assert context_of(fake, 1).runs == 5
    session.forward(TOKENS[:, 25:27])
    assert context_of(fake, MOST_NEW).runs == 2


def test_the_tightest_profile_is_taken_whatever_their_order(fake: FakeTrtSubject) -> None:
    session = fake.open(axes=list(reversed(fake.axes())))
    session.forward(TOKENS[:, :1])
    assert [context.profile for context in fake.engine.contexts] == [0]
    assert context_of(fake, 1).runs == 1


def test_a_long_prompt_is_cut_into_pieces(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, : 2 * MOST_NEW + 1])
    assert context_of(fake, MOST_NEW).runs == 2
    assert context_of(fake, 1).runs == 1, "what is left over is one token"


def test_a_step_sets_only_what_changed(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :5])
    for i in range(5, 8):
        session.forward(TOKENS[:, i : i + 1])
    context = context_of(fake, 1)
    before = context.set_calls
    session.forward(TOKENS[:, 8:9])
    growing = {contract.CACHE_SHARED: 0, contract.CACHE_CONCAT: PASTS + 2 * PASTS}[fake.kind]
    assert context.set_calls - before == 1 + growing, "the mask, and of a growing cache the shape and both places"


def test_past_and_present_are_one_buffer_or_take_turns(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :5])
    name = contract.past_name(1, contract.VALUE), contract.present_name(1, contract.VALUE)
    places = []
    for i in range(5, 9):
        session.forward(TOKENS[:, i : i + 1])
        addresses = context_of(fake, 1).addresses
        places.append(tuple(addresses[each] for each in name))
    if fake.kind == contract.CACHE_SHARED:
        assert len({*places}) == 1
        assert places[0][0] == places[0][1]
    else:
        assert places[0] == places[2] == places[1][::-1] == places[3][::-1]
        assert places[0][0] != places[0][1]


def test_where_shapes_change_with_every_token_nothing_is_captured(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :5])
    for i in range(5, 30):
        session.forward(TOKENS[:, i : i + 1])
    assert fake.gpu.calls["cudaStreamBeginCapture"] == 0
    assert session.graph_launches == 0


def same_step(session: TrtSession, tokens: list[int]) -> list[np.ndarray]:
    """Different tokens at the same place: shapes and addresses stay the same."""
    session.forward(TOKENS[:, :5])
    found = []
    for token in tokens:
        found.append(session.forward(np.array([[token]])))
        session.rollback(5)
    return found


def test_a_step_whose_shapes_stay_is_captured_once_and_then_launched(tiny_graphs: dict[str, Path]) -> None:
    fake = FakeTrtSubject(tiny_graphs, contract.CACHE_SHARED)
    tokens = [7, 8, 9, 10]
    plain, graph = fake.open(cuda_graph=False), fake.open()
    want = same_step(plain, tokens)
    assert fake.gpu.calls["cudaGraphLaunch"] == 0
    for got, expected in zip(same_step(graph, tokens), want, strict=True):
        assert np.array_equal(got, expected)
    assert not np.array_equal(want[0], want[1])
    assert fake.gpu.calls["cudaStreamBeginCapture"] == 1
    assert graph.graph_launches == fake.gpu.calls["cudaGraphLaunch"] == 3
    # Another batch has other buffers: what was captured for the old ones must not be launched.
    graph.reset()
    graph.forward(np.repeat(TOKENS[:, :5], 2, axis=0))
    graph.forward(np.array([[7], [7]]))
    assert graph.graph_launches == 3
    assert "CUDA graphs" not in graph.description
    plain.close()
    graph.close()
    assert not fake.gpu.graphs


def test_decoding_is_one_graph_for_as_long_as_the_mask_does(exported: Any) -> None:
    """A mask of slots is as long for 256 tokens in turn: a step runs plainly, the next is captured, and so on."""
    fake = ExportedSubject(exported("llama", "tensorrt"))
    plain, graph = fake.open(cuda_graph=False), fake.open()
    for session in (plain, graph):
        session.forward(fake.tokens[:, :5])
    for i in range(5, 300):
        step = fake.tokens[:, i : i + 1]
        np.testing.assert_array_equal(graph.forward(step), plain.forward(step))
        if i in (100, 200):
            for session in (plain, graph):
                session.rollback(i - 20)
                session.forward(fake.tokens[:, i - 20 : i + 1])
    assert fake.gpu.calls["cudaStreamBeginCapture"] == 2
    assert graph.graph_launches == (256 - 5 - 1) + (300 - 256 - 1)
    assert plain.graph_launches == 0
    for session in (plain, graph):
        session.close()
    assert not fake.gpu.graphs
    assert not fake.gpu.live


def test_a_mask_of_slots_ends_with_the_buffer(exported: Any) -> None:
    fake = ExportedSubject(exported("llama", "tensorrt"))
    axes = [decoder_axes(batch=1, new=new, context=300, in_place=True) for new in (64, 1)]
    session = fake.open(axes=axes)
    assert session.capacity == 300
    session.forward(fake.tokens[:, :299])
    want = fake.reference()
    want.forward(fake.tokens[:, :299])
    np.testing.assert_allclose(
        session.forward(fake.tokens[:, 299:300]), want.forward(fake.tokens[:, 299:300]), atol=fake.tolerance
    )
    assert context_of(fake, 1).shapes[contract.ATTENTION_MASK] == (1, 300)


def test_a_graph_is_forgotten_when_logits_move(tiny_graphs: dict[str, Path]) -> None:
    fake = FakeTrtSubject(tiny_graphs, contract.CACHE_SHARED)
    session = fake.open()
    want = same_step(session, [7, 8, 9])
    assert session.graph_launches == 2
    # More positions need a larger place, and the one the graph writes to is gone.
    session.reset()
    session.forward(TOKENS[:, :100], keep=0)
    session.reset()
    for got, expected in zip(same_step(session, [7, 8, 9]), want, strict=True):
        assert np.array_equal(got, expected)
    assert session.graph_launches == 4


@pytest.mark.parametrize("why", ["engine", "cuda"])
def test_where_a_capture_fails_steps_run_without_and_the_session_says_so(
    tiny_graphs: dict[str, Path], why: str
) -> None:
    fake = FakeTrtSubject(tiny_graphs, contract.CACHE_SHARED)
    want = same_step(fake.open(), [7, 8, 9])
    session = fake.open(graph_capture=why != "engine")
    if why == "cuda":
        fake.gpu.fail("cudaGraphInstantiateWithFlags", LAUNCH_FAILURE)
    for got, expected in zip(same_step(session, [7, 8, 9]), want, strict=True):
        assert np.array_equal(got, expected)
    assert session.graph_launches == 0
    assert "without CUDA graphs: " in session.description
    session.close()


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost"])
def test_running_out_of_memory_leaves_the_session_usable(fake: FakeTrtSubject, function: str) -> None:
    session = fake.open()
    opened = fake.gpu.calls[function]
    want = session.forward(TOKENS[:, :9])
    calls = fake.gpu.calls[function] - opened
    assert calls >= 3
    session.close()
    for after in range(calls):
        session = fake.open()
        fake.gpu.fail(function, OUT_OF_MEMORY, after)
        with pytest.raises(DoesNotFit) as caught:
            session.forward(TOKENS[:, :9])
        assert "while processing 9 tokens after 0" in caught.value.fact
        assert session.length == 0
        assert np.array_equal(session.forward(TOKENS[:, :9]), want)
        session.close()
        assert not fake.gpu.live, "memory is left"


@pytest.mark.parametrize(
    ("function", "after"),
    [*(("cudaMemcpyAsync", after) for after in range(6)), *(("cudaStreamSynchronize", after) for after in range(3))],
)
def test_an_error_within_a_long_prompt_loses_no_token(fake: FakeTrtSubject, function: str, after: int) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :5])
    before = session.caches()
    calls = fake.gpu.calls[function]
    fake.gpu.fail(function, LAUNCH_FAILURE, after)
    with pytest.raises(SessionError) as caught:
        session.forward(TOKENS[:, 5:585])
    assert fake.gpu.calls[function] > calls + after
    assert "while processing 580 tokens after 5" in caught.value.fact
    assert "cudaErrorLaunchFailure" in caught.value.fact
    assert session.length == 5
    for now, earlier in zip(session.caches(), before, strict=True):
        assert all(np.array_equal(now[suffix], earlier[suffix]) for suffix in earlier)
    after_all = session.forward(TOKENS[:, 5:40], keep=0)
    session.reset()
    np.testing.assert_allclose(after_all, session.forward(TOKENS[:, :40], keep=35), atol=2e-4)


def test_what_tensorrt_refuses_is_an_error_with_its_reason(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :5])
    context = fake.engine.contexts[0]
    context.execute_async_v3 = lambda stream: False  # type: ignore[method-assign]
    with pytest.raises(SessionError, match="run the engine") as caught:
        session.forward(TOKENS[:, 5:9])
    assert "TensorRT gave no reason" in caught.value.fact
    assert session.length == 5


def test_a_batch_that_the_engine_was_not_built_for_is_refused(fake: FakeTrtSubject) -> None:
    session = fake.open()
    with pytest.raises(SessionError, match="batch") as caught:
        session.forward(TOKENS[:, :12].reshape(4, 3))
    assert "4 sequences were given" in caught.value.fact
    assert "serves 3 at most" in caught.value.fact
    assert session.length == 0
    assert session.forward(TOKENS[:, :12].reshape(3, 4)).shape == (3, 1, 300)


def test_the_engine_limits_the_context(fake: FakeTrtSubject) -> None:
    axes = [decoder_axes(batch=1, new=16, context=64), decoder_axes(batch=1, new=1, context=48)]
    session = fake.open(axes=axes) if fake.kind == contract.CACHE_CONCAT else None
    if session is None:
        # Two profiles with buffers of different sizes have no size in common.
        with pytest.raises(SessionError, match="buffers") as caught:
            fake.open(axes=axes)
        assert "64 to 48" in caught.value.fact
        session = fake.open(axes=axes[:1], capacity=20)
        assert session.capacity == 20
        session.forward(TOKENS[:, :20])
        assert fake.engine.contexts[0].shapes[contract.past_name(0, contract.KEY)][2] == 64
        return
    assert session.capacity == 48
    session.forward(TOKENS[:, :48])
    with pytest.raises(SessionError, match="context"):
        session.forward(TOKENS[:, :1])


def test_everything_is_given_back(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :300], keep=0)
    for i in range(3):
        session.forward(TOKENS[:, i : i + 1])
    session.reset()
    session.forward(TOKENS[:, :10].reshape(2, 5))
    assert fake.gpu.live
    session.close()
    session.close()
    assert not fake.gpu.live
    assert not fake.gpu.streams
    assert session.length == 0


@pytest.mark.parametrize(
    ("edit", "fact"),
    [(rename_logits, "lacks logits"), (widen_cache, "past_key_values.0.key has shape"), (add_input, "inputs: adapter")],
)
def test_engines_of_another_contract_are_refused(
    tiny_graphs: dict[str, Path], tmp_path: Path, kind: str, edit: object, fact: str
) -> None:
    path = edited(tiny_graphs[kind], tmp_path / "other.onnx", edit)
    fake = FakeTrtSubject({kind: path}, kind)
    wide = [{**axes, "D": decoder_axes(batch=1, new=16, context=16)["batch_size"]} for axes in fake.axes()]
    with pytest.raises(BundleError) as caught:
        fake.open(axes=wide)
    assert fact in caught.value.fact
    assert "other.onnx" in caught.value.fact


def test_logits_of_another_shape_are_refused(fake: FakeTrtSubject) -> None:
    session = fake.open()
    session.forward(TOKENS[:, :4])
    context = fake.engine.contexts[0]
    context.get_tensor_shape = lambda name: (1, 4, 300)  # type: ignore[method-assign]
    with pytest.raises(BundleError) as caught:
        session.forward(TOKENS[:, 4:8])
    assert "[1, 4, 300] and not [1, 1, 300]" in caught.value.fact
    assert session.length == 4
