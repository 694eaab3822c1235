from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgekit import contract
from edgekit.checkpoint import open_checkpoint
from edgekit.errors import BundleError, SessionError
from edgekit.runtime.drafting.cp import CPDrafter, DraftSession
from edgekit.runtime.drafting.draft_session import OrtDraftSession
from edgekit.runtime.drafting.interface import DraftContext
from edgekit.runtime.sampling import SamplingOptions
from tests.export.tiny_heads import export_with_heads, written_heads
from tests.parity.tiny_models import write_checkpoint
from tests.runtime.drafting.tiny_draft import FEATURES, RANK, TOKENS, VOCABULARY, expected, write_tiny_draft
from tests.runtime.tiny_decoder import write_tiny_decoder

IDS = np.arange(VOCABULARY) * 3


@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_what_the_graph_says(tmp_path: Path, components: int | None, batch: int) -> None:
    rng = np.random.default_rng(0)
    session = OrtDraftSession(write_tiny_draft(tmp_path / "draft.onnx", components), IDS, threads=1)
    kept = components or RANK
    assert (session.tokens, session.rank, session.components) == (TOKENS, RANK, kept)
    assert session.features == FEATURES
    assert session.vocabulary is IDS
    features = rng.standard_normal((batch, FEATURES)).astype(np.float32)
    token = rng.integers(0, 30, batch)
    noise = rng.gumbel(size=(batch, RANK)).astype(np.float32) if components else None
    found = session.draft(features, token, noise)
    assert found[1].shape == (batch, TOKENS, kept, VOCABULARY)
    for got, want in zip(found, expected(features, token, noise, kept), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.draft(features, token, noise)


def test_what_it_gave_stays(tmp_path: Path) -> None:
    session = OrtDraftSession(write_tiny_draft(tmp_path / "draft.onnx"), IDS, threads=1)
    features = np.ones((1, FEATURES), np.float32)
    first = session.draft(features, np.array([1]), None)
    copies = [array.copy() for array in first]
    session.draft(-features, np.array([2]), None)
    for array, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("components", [None, 2])
def test_a_drafter_over_it(tmp_path: Path, components: int | None) -> None:
    session: DraftSession = OrtDraftSession(write_tiny_draft(tmp_path / "draft.onnx", components), IDS, threads=1)
    features = np.ones((1, FEATURES), np.float32)
    context = DraftContext([4, 5], features, SamplingOptions(temperature=1.0), np.random.default_rng(0))
    proposal = CPDrafter(session).propose(context, TOKENS)
    assert len(proposal.tokens) == TOKENS
    assert set(proposal.tokens) <= set(IDS.tolist())


@pytest.mark.parametrize(
    "ids", [np.arange(VOCABULARY - 1), np.zeros(VOCABULARY, np.int64), IDS[::-1], IDS[None]], ids=lambda ids: str(ids)
)
def test_a_vocabulary_that_does_not_fit(tmp_path: Path, ids: np.ndarray) -> None:
    with pytest.raises(BundleError, match="drafts 10 tokens"):
        OrtDraftSession(write_tiny_draft(tmp_path / "draft.onnx"), ids, threads=1)


def test_graphs_that_are_no_draft_graphs(tmp_path: Path) -> None:
    decoder = write_tiny_decoder(tmp_path / "decoder.onnx", contract.CACHE_CONCAT)
    with pytest.raises(BundleError, match=r"decoder.onnx: it has .*input_ids"):
        OrtDraftSession(decoder, IDS, threads=1)
    other = write_tiny_draft(tmp_path / "other.onnx", **{contract.DRAFT_TOKEN: TensorProto.INT32})
    with pytest.raises(BundleError, match="int32"):
        OrtDraftSession(other, IDS, threads=1)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(SessionError, match="load broken.onnx"):
        OrtDraftSession(tmp_path / "broken.onnx", IDS, threads=1)


def test_an_engine_that_fails_is_told(tmp_path: Path) -> None:
    session = OrtDraftSession(write_tiny_draft(tmp_path / "draft.onnx"), IDS, threads=1)
    with pytest.raises(SessionError, match="ONNX Runtime must be able to draft"):
        session.draft(np.ones((1, FEATURES + 1), np.float32), np.array([1]), None)


def test_a_drafter_sees_what_lies_before_however_it_came_there(tmp_path: Path) -> None:
    """Steps of several tokens, a pause, a text taken back, another text: each draft is that of a fresh drafter."""
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "llama", "llama", num_hidden_layers=2))
    heads = written_heads(tmp_path / "heads.safetensors", checkpoint, feature_layers=(1, 2))
    bundle = export_with_heads(checkpoint, tmp_path / "bundle", heads, draft_components=4)
    draft = bundle.manifest.draft
    assert draft is not None
    assert draft.window == 7
    ids = np.load(bundle.file(draft.vocabulary)).astype(np.int64)
    session = OrtDraftSession(bundle.file(draft.file), ids, threads=1)
    rng, drafter = np.random.default_rng(0), CPDrafter(session)
    tokens, other = rng.integers(0, 200, 400).tolist(), rng.integers(0, 200, 400).tolist()
    features = rng.standard_normal((400, draft.features)).astype(np.float32) * 5

    def proposed(by: CPDrafter, text: list[int], count: int, known: int) -> tuple[int, ...]:
        """After `count` positions, the features of the last `known` of which are there."""
        given = features[count - known : count]
        return by.propose(DraftContext(text[: count + 1], given, SamplingOptions(), rng), TOKENS).tokens

    asked, found, whole = [(9, 9), (10, 3), (13, 9), (14, 1), (18, 4), (90, 32), (92, 9), (91, 9), (93, 20)], [], []
    for count, known in asked:
        found.append(proposed(drafter, tokens, count, known))
        whole.append(proposed(CPDrafter(session), tokens, count, min(count, 32)))
    assert found == whole
    assert len(set(found)) > 5
    # Another text up to there: what was kept of the first is not what lies before.
    assert proposed(drafter, other, 95, 9) == proposed(CPDrafter(session), other, 95, 9)
