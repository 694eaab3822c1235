"""The draft session of TensorRT over fakes of CUDA and TensorRT: the fake engine computes with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import contract
from edgekit.build.profile import AxisRange
from edgekit.checkpoint import open_checkpoint
from edgekit.errors import BundleError, DoesNotFit, SessionError
from edgekit.runtime.drafting.cp import CPDrafter, DraftSession
from edgekit.runtime.drafting.draft_session import OrtDraftSession
from edgekit.runtime.drafting.interface import DraftContext
from edgekit.runtime.drafting.trt_draft_session import TrtDraftSession
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.trt_engine import TrtEngine
from tests.export.tiny_heads import export_with_heads, written_heads
from tests.parity.tiny_models import write_checkpoint
from tests.runtime.drafting.tiny_draft import FEATURES, RANK, TOKENS, VOCABULARY, expected, write_tiny_draft
from tests.runtime.fake_cuda import LAUNCH_FAILURE, OUT_OF_MEMORY, FakeCudart
from tests.runtime.fake_tensorrt import FakeEngine, fake_engine

IDS = np.arange(VOCABULARY) * 3
MOST_BATCH = 3


@pytest.fixture(params=[None, 2], ids=["all", "two"])
def components(request: pytest.FixtureRequest) -> int | None:
    found: int | None = request.param
    return found


@pytest.fixture
def graph(tmp_path: Path, components: int | None) -> Path:
    return write_tiny_draft(tmp_path / "draft.onnx", components)


class Fake:
    """A graph as an engine, on a GPU of its own."""

    def __init__(self, graph: Path, ids: np.ndarray = IDS) -> None:
        self.graph, self.ids, self.gpu = graph, ids, FakeCudart()
        self.engine: FakeEngine

    def open(self, *, graph_capture: bool = True, **options: Any) -> TrtDraftSession:
        axes = [{contract.AXIS_BATCH: AxisRange(1, 1, MOST_BATCH), contract.AXIS_NEW: AxisRange(1, 2, 9)}]
        engine, self.engine = fake_engine(self.gpu, self.graph, axes, TrtEngine, graph_capture=graph_capture)
        return TrtDraftSession(engine, self.gpu.cuda(), self.ids, description="a fake", **options)


def given(session: DraftSession, batch: int, seed: int, features: int = FEATURES, new: int = 1) -> tuple[Any, ...]:
    """What a draft of so many sequences is made of, with a window after so many new positions."""
    rng = np.random.default_rng(seed)
    noise = rng.gumbel(size=(batch, session.rank)).astype(np.float32) if session.components < session.rank else None
    rows = (batch, new) if session.window else (batch,)
    found = rng.standard_normal((*rows, features)).astype(np.float32), rng.integers(0, 30, rows), noise
    if not session.window:
        return found
    return (*found, rng.standard_normal((batch, session.window, session.kept)).astype(np.float32))


def same(found: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> None:
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == np.float32
        assert got.shape == want.shape
        np.testing.assert_array_equal(got, want)


def test_it_gives_what_onnx_runtime_gives(graph: Path, components: int | None) -> None:
    session: DraftSession = Fake(graph).open()
    reference = OrtDraftSession(graph, IDS, threads=1)
    kept = components or RANK
    assert (session.tokens, session.rank, session.components) == (TOKENS, RANK, kept)
    assert session.vocabulary is IDS
    for seed, batch in enumerate((1, 1, 1, 3, 3, 3, 1, 2, 1, 1, 1)):
        arguments = given(session, batch, seed)
        found = session.draft(*arguments)
        same(found, reference.draft(*arguments))
        for got, want in zip(found, expected(*arguments, kept), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("form", "dtype"), [("tensorrt", "fp16"), ("tensorrt", "int8"), ("jetpack6", "fp16")])
def test_exported_heads(form: str, dtype: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "llama", "llama", num_hidden_layers=2))
    heads = written_heads(tmp_path / "heads.safetensors", checkpoint, feature_layers=(1, 2))
    bundle = export_with_heads(checkpoint, tmp_path / "bundle", heads, form, dtype, draft_components=2)
    draft = bundle.manifest.draft
    assert draft is not None
    ids = np.load(bundle.file(draft.vocabulary)).astype(np.int64)
    session = Fake(bundle.file(draft.file), ids).open()
    reference = OrtDraftSession(bundle.file(draft.file), ids, threads=1)
    assert (session.features, session.tokens, session.rank) == (draft.features, draft.tokens, draft.rank)
    assert (session.window, session.kept) == (reference.window, reference.kept) == (draft.window, 129)
    # The third of the same sizes is the first that a graph launches; more positions, or more texts, have their own.
    for seed, (batch, new) in enumerate([(1, 1)] * 3 + [(1, 4)] * 3 + [(1, 1)] * 2 + [(2, 3)] * 3 + [(1, 1)]):
        arguments = given(session, batch, seed, draft.features, new)
        same(session.draft(*arguments), reference.draft(*arguments))
        assert session.present is not None
        assert reference.present is not None
        same((session.present,), (reference.present,))
    assert session.graph_launches > 0
    with pytest.raises(SessionError, match="what the draft graph takes"):
        session.draft(*given(session, 1, 0, draft.features)[:3])


def test_what_it_gave_stays(graph: Path) -> None:
    session = Fake(graph).open()
    first = session.draft(*given(session, 1, 0))
    copies = tuple(array.copy() for array in first)
    second = session.draft(*given(session, 1, 1))
    assert not np.array_equal(first[1], second[1])
    session.close()
    same(first, copies)


def test_a_drafter_over_it(graph: Path) -> None:
    contexts = [
        DraftContext([4, 5 + i], np.full((1, FEATURES), 0.1 * i, np.float32), SamplingOptions(), None) for i in (1, 2)
    ]  # type: ignore[arg-type]
    drafter, reference = CPDrafter(Fake(graph).open()), CPDrafter(OrtDraftSession(graph, IDS, threads=1))
    proposals = [drafter.propose(context, TOKENS).tokens for context in contexts]
    assert proposals == [reference.propose(context, TOKENS).tokens for context in contexts]
    assert len(proposals[0]) == TOKENS


def test_a_draft_is_captured_once_and_then_launched(graph: Path) -> None:
    fake = Fake(graph)
    plain, session = fake.open(cuda_graph=False), fake.open()
    for seed in range(6):
        arguments = given(session, 1, seed)
        same(session.draft(*arguments), plain.draft(*arguments))
    assert fake.gpu.calls["cudaStreamBeginCapture"] == 1
    assert session.graph_launches == fake.gpu.calls["cudaGraphLaunch"] == 5
    assert plain.graph_launches == 0
    assert session.description == "a fake"
    # A larger batch has other buffers: what was captured for the old ones must not be launched.
    for seed, batch in enumerate((3, 1, 3, 3, 1)):
        arguments = given(session, batch, seed)
        same(session.draft(*arguments), plain.draft(*arguments))
    assert session.graph_launches == 5 + 1
    plain.close()
    session.close()
    assert not fake.gpu.graphs


def test_a_launched_draft_sets_nothing(graph: Path) -> None:
    fake = Fake(graph)
    session = fake.open()
    session.draft(*given(session, 1, 0))
    before = fake.engine.contexts[0].set_calls
    session.draft(*given(session, 1, 1))
    session.draft(*given(session, 1, 2))
    assert fake.engine.contexts[0].set_calls == before


@pytest.mark.parametrize("why", ["engine", "cuda"])
def test_where_a_capture_fails_drafts_run_without_and_the_session_says_so(graph: Path, why: str) -> None:
    fake = Fake(graph)
    session = fake.open(graph_capture=why != "engine")
    reference = OrtDraftSession(graph, IDS, threads=1)
    if why == "cuda":
        fake.gpu.fail("cudaGraphInstantiateWithFlags", LAUNCH_FAILURE)
    for seed in range(4):
        arguments = given(session, 1, seed)
        same(session.draft(*arguments), reference.draft(*arguments))
    assert session.graph_launches == 0
    assert "without CUDA graphs: " in session.description


def test_everything_is_given_back(graph: Path) -> None:
    fake = Fake(graph)
    session = fake.open()
    for batch in (1, 1, 3, 3, 1):
        session.draft(*given(session, batch, 0))
    assert fake.gpu.live
    assert fake.gpu.graphs
    session.close()
    session.close()
    assert not fake.gpu.live
    assert not fake.gpu.graphs
    assert not fake.gpu.streams
    with pytest.raises(SessionError, match="closed"):
        session.draft(*given(session, 1, 0))


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost"])
def test_running_out_of_memory_leaves_the_session_usable(graph: Path, function: str) -> None:
    fake = Fake(graph)
    session = fake.open()
    arguments = given(session, 2, 0)
    want = session.draft(*arguments)
    calls = fake.gpu.calls[function]
    assert calls >= 4
    session.close()
    for after in range(calls):
        session = fake.open()
        session.draft(*given(session, 1, 1))
        fake.gpu.fail(function, OUT_OF_MEMORY, after)
        with pytest.raises(DoesNotFit, match="memory") as caught:
            session.draft(*arguments)
        assert caught.value.fact.startswith("while drafting: ")
        same(session.draft(*arguments), want)
        session.close()
        assert not fake.gpu.live, "memory is left"


@pytest.mark.parametrize(
    ("function", "after"), [*(("cudaMemcpyAsync", after) for after in range(4)), ("cudaStreamSynchronize", 0)]
)
def test_an_engine_that_fails_is_told_and_the_next_draft_is_right(graph: Path, function: str, after: int) -> None:
    fake = Fake(graph)
    session = fake.open()
    first, second = given(session, 1, 0), given(session, 1, 1)
    want = OrtDraftSession(graph, IDS, threads=1).draft(*second)
    fake.gpu.fail(function, LAUNCH_FAILURE, after)
    with pytest.raises(SessionError) as caught:
        session.draft(*first)
    assert "while drafting: " in caught.value.fact
    assert "cudaErrorLaunchFailure" in caught.value.fact
    assert not fake.gpu.queue, "what was enqueued is over before anything can change under it"
    same(session.draft(*second), want)


def test_what_is_no_draft_is_refused(graph: Path, components: int | None) -> None:
    session = Fake(graph).open()
    features, token, noise = given(session, 1, 0)
    other = None if components else np.zeros((1, RANK), np.float32)
    for wrong in (
        (features[:, 1:], token, noise),
        (features[0], token, noise),
        (features.astype(np.float64), token, noise),
        (features, token.astype(np.int32), noise),
        (features, np.array([1, 2]), noise),
        (features, np.array(1), noise),
        (features[:0], token[:0], None if noise is None else noise[:0]),
        (features, token, other),
    ):
        with pytest.raises(SessionError, match="what the draft graph takes"):
            session.draft(*wrong)
    with pytest.raises(SessionError, match="batch") as caught:
        session.draft(*given(session, MOST_BATCH + 1, 0))
    assert "4 sequences were given" in caught.value.fact
    assert "--max-batch-size" in caught.value.next_step


def test_engines_of_another_contract_are_refused(graph: Path, tmp_path: Path) -> None:
    for ids in (IDS[1:], IDS[::-1], IDS[None]):
        fake = Fake(graph, ids)
        with pytest.raises(BundleError, match="drafts 10 tokens") as caught:
            fake.open()
        assert "edgekit build" in caught.value.next_step
        assert not fake.gpu.streams
    other = write_tiny_draft(tmp_path / "other.onnx")
    fake = Fake(other)
    engine, _ = fake_engine(fake.gpu, other, [{contract.AXIS_BATCH: AxisRange(1, 1, 1)}], TrtEngine)
    engine.outputs.pop()
    with pytest.raises(BundleError, match=r"other.onnx: it has .*draft_log_weights"):
        TrtDraftSession(engine, fake.gpu.cuda(), IDS)


def test_outputs_of_another_shape_are_refused(graph: Path) -> None:
    fake = Fake(graph)
    session = fake.open()
    session.draft(*given(session, 1, 0))
    fake.engine.contexts[0].get_tensor_shape = lambda name: (7, 7)  # type: ignore[method-assign]
    with pytest.raises(BundleError, match="draft log weights") as caught:
        session.draft(*given(session, 1, 0))
    assert f"[7, 7] and not [1, {session.components}]" in caught.value.fact
