"""What draft heads read of a decoder, out of every session: the same whatever the engine, the cache and the pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit import contract
from edgekit.build.profile import decoder_axes
from edgekit.errors import BundleError, DoesNotFit
from edgekit.runtime.session import DecoderSession
from tests.runtime.fake_cuda import OUT_OF_MEMORY
from tests.runtime.subjects import KINDS, SUBJECTS, FakeTrtSubject, Subject
from tests.runtime.test_ort_session import edited
from tests.runtime.test_trt_session import same_step
from tests.runtime.tiny_decoder import HIDDEN, MAX_POSITION, write_tiny_decoder

WIDTH = 2 * HIDDEN
TOKENS = np.random.default_rng(0).integers(0, 300, (1, 600))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("features")
    return {kind: write_tiny_decoder(folder / f"{kind}.onnx", kind, features=True) for kind in KINDS}


@pytest.fixture(params=SUBJECTS)
def with_features(request: pytest.FixtureRequest, graphs: dict[str, Path], kind: str) -> Subject:
    made: Subject = SUBJECTS[request.param](graphs, kind)
    return made


def features_of(session: DecoderSession) -> np.ndarray:
    assert session.features is not None
    assert session.features.dtype == np.float32
    return session.features


def test_they_are_those_of_the_kept_positions(with_features: Subject) -> None:
    session = with_features.open()
    assert session.features is None
    session.forward(TOKENS[:, :40], keep=0)
    whole = features_of(session)
    assert whole.shape == (1, 40, WIDTH)
    assert np.abs(whole).max() > 1
    session.reset()
    for start, end, keep in ((0, 9, 3), (9, 10, 1), (10, 11, 0), (11, 36, 2), (36, 40, 4)):
        logits = session.forward(TOKENS[:, start:end], keep=keep)
        found = features_of(session)
        assert found.shape == (1, logits.shape[1], WIDTH)
        np.testing.assert_allclose(found, whole[:, end - found.shape[1] : end], atol=with_features.tolerance)
    session.close()
    assert session.features is None


def test_another_engine_has_the_same(with_features: Subject) -> None:
    session, reference = with_features.open(), with_features.reference()
    # Longer than the engine of the fake takes at once, so that pieces are put together; of a batch, too.
    for tokens, keep in ((TOKENS, 0), (TOKENS, 500), (TOKENS[:, :30].reshape(3, 10), 0)):
        for each in (session, reference):
            each.reset()
            each.forward(tokens, keep=keep)
        np.testing.assert_allclose(features_of(session), features_of(reference), atol=with_features.tolerance)
    kept = features_of(session).copy()
    earlier = features_of(session)
    session.forward(TOKENS[:, 30:33].T.copy())
    np.testing.assert_array_equal(earlier, kept, err_msg="they are the caller's")


def test_without_heads_there_are_none(tiny_graphs: dict[str, Path], kind: str) -> None:
    for subject in SUBJECTS.values():
        session = subject(tiny_graphs, kind).open()
        session.forward(TOKENS[:, :4])
        assert session.features is None
        session.close()


def test_cuda_graphs_copy_them_too(graphs: dict[str, Path]) -> None:
    fake = FakeTrtSubject(graphs, contract.CACHE_SHARED)
    plain, graph = fake.open(cuda_graph=False), fake.open()

    def run(session: Any) -> list[np.ndarray]:
        found = []
        session.forward(TOKENS[:, :5])
        for token in (7, 8, 9, 10):
            session.forward(np.array([[token]]))
            found.append(session.features)
            session.rollback(5)
        return found

    wanted, found = run(plain), run(graph)
    assert graph.graph_launches == 3
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(found[2], found[3])
    # More positions move the buffers, and the graph that writes to the old ones is forgotten.
    graph.reset()
    graph.forward(TOKENS[:, :100], keep=0)
    graph.reset()
    for got, expected in zip(run(graph), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(same_step(graph, [7, 8]), same_step(plain, [7, 8]), strict=True):
        np.testing.assert_array_equal(got, expected)
    for session in (plain, graph):
        session.close()
    assert not fake.gpu.live
    assert not fake.gpu.graphs


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost"])
def test_running_out_of_memory_leaves_the_session_usable(graphs: dict[str, Path], function: str) -> None:
    fake = FakeTrtSubject(graphs, contract.CACHE_SHARED)
    session = fake.open()
    opened = fake.gpu.calls[function]
    session.forward(TOKENS[:, :9])
    wanted, calls = features_of(session), fake.gpu.calls[function] - opened
    session.close()
    for after in range(calls):
        session = fake.open()
        fake.gpu.fail(function, OUT_OF_MEMORY, after)
        with pytest.raises(DoesNotFit):
            session.forward(TOKENS[:, :9])
        assert session.features is None
        session.forward(TOKENS[:, :9])
        np.testing.assert_array_equal(features_of(session), wanted)
        session.close()
        assert not fake.gpu.live, "memory is left"


def half_features(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.output[0] == contract.DRAFT_FEATURES)
    node.output[0] = "wide"
    graph.node.append(onnx.helper.make_node("Cast", ["wide"], [contract.DRAFT_FEATURES], to=onnx.TensorProto.FLOAT16))
    output = next(value for value in graph.output if value.name == contract.DRAFT_FEATURES)
    output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def unknown_width(graph: onnx.GraphProto) -> None:
    output = next(value for value in graph.output if value.name == contract.DRAFT_FEATURES)
    output.type.tensor_type.shape.dim[2].dim_param = "batch_size"


@pytest.mark.parametrize(
    ("edit", "fact"),
    [(half_features, "draft_features is float16"), (unknown_width, "draft_features has shape")],
)
def test_features_of_another_contract_are_refused(
    graphs: dict[str, Path], tmp_path: Path, edit: Any, fact: str
) -> None:
    kind = contract.CACHE_CONCAT
    path = edited(graphs[kind], tmp_path / "other.onnx", edit)
    for subject in SUBJECTS.values():
        with pytest.raises(BundleError) as caught:
            subject({kind: path}, kind).open()
        assert fact in caught.value.fact


def test_features_of_another_shape_are_refused(graphs: dict[str, Path]) -> None:
    fake = FakeTrtSubject(graphs, contract.CACHE_CONCAT)
    session = fake.open()
    session.forward(TOKENS[:, :4])
    context = fake.engine.contexts[0]
    real = context.get_tensor_shape
    context.get_tensor_shape = (  # type: ignore[method-assign]
        lambda name: (1, 4, WIDTH) if name == contract.DRAFT_FEATURES else real(name)
    )
    with pytest.raises(BundleError, match="draft features of the positions") as caught:
        session.forward(TOKENS[:, 4:8])
    assert f"[1, 4, {WIDTH}] and not [1, 1, {WIDTH}]" in caught.value.fact
    assert session.length == 4


def test_pieces_shorter_than_what_is_kept_are_put_together(graphs: dict[str, Path]) -> None:
    axes = [decoder_axes(batch=1, new=new, context=MAX_POSITION) for new in (8, 1)]
    fake = FakeTrtSubject(graphs, contract.CACHE_CONCAT)
    session, reference = fake.open(axes=axes), fake.reference()
    for each in (session, reference):
        each.forward(TOKENS[:, :20], keep=11)
    np.testing.assert_allclose(features_of(session), features_of(reference), atol=2e-4)
