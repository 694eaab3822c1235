"""What --draft opens with TensorRT: the draft engine of a real bundle with heads, over fakes of CUDA and TensorRT."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
from edgekit.build.profile import AxisRange, Limits, decoder_profiles, draft_profiles
from edgekit.bundle import Bundle, EngineEntry, read_bundle
from edgekit.bundle.engine_entry import DraftEngine
from edgekit.bundle.extend import extend_bundle
from edgekit.bundle.read import check_file
from edgekit.checkpoint import open_checkpoint
from edgekit.errors import BundleError, EdgekitError, SessionError
from edgekit.runtime.drafting.draft_session import OrtDraftSession
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.open import drafting_for, opened_for
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.session import session_from_bundle
from edgekit.runtime.trt_bundle import open_draft_session
from tests import gpu_tools
from tests.export.tiny_heads import export_with_heads, written_heads
from tests.parity.tiny_models import write_checkpoint
from tests.runtime.fake_cuda import FakeCudart
from tests.runtime.fake_tensorrt import FakeEngine, FakeTensorRT
from tests.runtime.test_generate import Numbers
from tests.runtime.test_trt_bundle import ENTRY

GREEDY, SEEDED = SamplingOptions(), SamplingOptions(temperature=0.8, seed=4)
LIMITS = Limits(max_input_len=64, max_kv_cache_capacity=256, max_draft_len=3)
DRAFT = DraftEngine("", (), "0" * 64, "0" * 64, 1, None, None, 1.0, None)


def entry(name: str = "sm89-fp32", *, drafts: bool = True, **changed: Any) -> EngineEntry:
    found = replace(ENTRY, name=name, file=f"engines/{name}/model.engine", max_kv_cache_capacity=256, **changed)
    return replace(found, draft=replace(DRAFT, file=f"engines/{name}/draft.engine")) if drafts else found


def exported_to(folder: Path, form: str, dtype: str = "fp32") -> Bundle:
    config = {"num_hidden_layers": 2, "max_position_embeddings": 256}
    checkpoint = open_checkpoint(write_checkpoint(folder / "llama", "llama", **config))
    heads = written_heads(folder / "heads.safetensors", checkpoint, feature_layers=(1, 2))
    return export_with_heads(checkpoint, folder / "bundle", heads, form, dtype, draft_components=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported_to(tmp_path_factory.mktemp("heads"), "tensorrt")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    fake = FakeCudart(compute_capability=(8, 9))
    monkeypatch.setattr("edgekit.runtime.trt_choice.load_cuda", fake.cuda)
    return fake


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)  # type: ignore[arg-type]
    return fake


Make = Callable[..., Bundle]


@pytest.fixture
def make(exported: Bundle, tmp_path: Path, gpu: FakeCudart, trt: FakeTensorRT) -> Make:
    """The bundle with these engines, whose files hold their own names."""

    def write(*entries: EngineEntry) -> Bundle:
        shutil.copytree(exported.path, tmp_path / "bundle")
        heads = exported.manifest.draft
        assert heads is not None
        graphs = {"model.engine": exported.graph, "draft.engine": exported.file(heads.file)}
        in_place = exported.manifest.cache.kind == "shared"
        profiles: dict[str, list[dict[str, AxisRange]]] = {
            "model.engine": [*decoder_profiles(LIMITS, in_place=in_place).values()],
            "draft.engine": [*draft_profiles(LIMITS).values()],
        }
        with extend_bundle(read_bundle(tmp_path / "bundle")) as draft:
            for each in entries:
                (draft.path / each.directory).mkdir(parents=True)
                for name in each.engine_files:
                    (draft.path / name).write_text(name)
                    kind = Path(name).name
                    trt.engines[name.encode()] = lambda kind=kind: FakeEngine(gpu, graphs[kind], profiles[kind])
            draft.manifest["engines"] = [each.to_dict() for each in entries]
        return read_bundle(tmp_path / "bundle")

    return write


def opened(bundle: Bundle, choice: str, count: int | None = None, sampling: SamplingOptions = GREEDY) -> Drafting:
    drafting = drafting_for(bundle, choice, count, sampling=sampling, backend="tensorrt", threads=1)
    assert drafting is not None
    return drafting


def names(drafting: Drafting) -> list[str]:
    return [drafter.name for drafter in drafting._drafters]


def refused(bundle: Bundle, choice: str = "cp") -> EdgekitError:
    with pytest.raises(BundleError) as caught:
        opened(bundle, choice)
    return caught.value


@pytest.mark.parametrize("choice", ["cp", "auto"])
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seed"])
def test_the_answer_is_that_of_plain_decoding(
    make: Make, choice: str, sampling: SamplingOptions, gpu: FakeCudart
) -> None:
    bundle = make(entry())
    session = session_from_bundle(bundle, backend="tensorrt")
    prompt = np.random.default_rng(0).integers(3, 200, 20).tolist()
    options = GenerationOptions(sampling, max_new_tokens=24)

    def end(drafting: Drafting | None) -> Finished:
        event = list(generate(session, Numbers(), prompt, options, drafting=drafting))[-1]
        assert isinstance(event, Finished)
        return event

    # The same heads in ONNX Runtime propose the same tokens.
    reference = drafting_for(bundle, choice, 3, sampling=sampling, backend="cpu", threads=1)
    drafting = opened(bundle, choice, 3, sampling)
    drafted, by_reference = end(drafting), end(reference)
    assert drafted.tokens == by_reference.tokens == end(None).tokens
    assert drafted.statistics.draft is not None
    assert by_reference.statistics.draft is not None
    found, wanted = (each.statistics.draft.sources["cp"] for each in (drafted, by_reference))  # type: ignore[union-attr]
    assert found.drafted > 0
    assert (found.drafted, found.accepted) == (wanted.drafted, wanted.accepted)
    drafting.close()
    session.close()
    assert not gpu.live
    assert not gpu.streams


def test_auto_drafts_with_heads_where_their_engine_is_there(make: Make) -> None:
    drafting = opened(make(entry(drafts=False), entry("newer")), "auto")
    assert names(drafting) == ["ngram", "cp"]
    assert "draft engine newer" in drafting._drafters[1]._session.description  # type: ignore[attr-defined]


def test_the_newest_draft_engine_that_fits_is_taken(make: Make, trt: FakeTensorRT) -> None:
    bare, foreign = entry("bare", drafts=False), entry("foreign", compute_capabilities=("87",))
    opened(make(entry("older"), entry("newer"), bare, foreign), "cp")
    assert trt.deserialised == [b"engines/newer/draft.engine"], "and the decoder's is left alone"


def test_a_draft_engine_that_was_not_built_is_refused_with_the_command(make: Make, trt: FakeTensorRT) -> None:
    bundle = make(entry(drafts=False))
    error = refused(bundle)
    assert error.fact == "sm89-fp32 was built without one"
    assert f"edgekit build {bundle.path} --device rtx-4090" in error.next_step
    assert names(opened(bundle, "auto")) == ["ngram"]
    assert not trt.deserialised


def test_a_bundle_without_engines_names_the_command(make: Make) -> None:
    bundle = make()
    error = refused(bundle)
    assert f"{bundle.path} has none" in error.fact
    assert "edgekit build" in error.next_step


def test_auto_asks_for_an_engine_that_runs_here(make: Make, trt: FakeTensorRT) -> None:
    bundle = make(entry("foreign", compute_capabilities=("87",)), entry("bare", drafts=False))
    with opened_for(bundle, "auto", sampling=GREEDY, backend="tensorrt") as (session, drafting):
        assert session.description.endswith("engine bare")
        assert drafting is not None
        assert names(drafting) == ["ngram"]
    assert trt.deserialised == [b"engines/bare/model.engine"]


def test_each_engine_is_hashed_once_and_only_if_it_is_used(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(entry())
    hashed: list[str] = []

    def noted(path: Path, file: Any, **options: Any) -> Any:
        hashed.append(Path(file.name).name)
        return check_file(path, file, **options)

    monkeypatch.setattr("edgekit.runtime.engine_compatibility.check_file", noted)
    for choice, files in (("cp", ["model.engine", "draft.engine"]), ("ngram", ["model.engine"])):
        hashed.clear()
        with opened_for(bundle, choice, sampling=GREEDY, backend="tensorrt"):
            assert hashed == files


@pytest.mark.parametrize("choice", ["cp", "auto"])
@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"compute_capabilities": ("87",)}, "is for compute capability 87, this GPU has 89"),
        ({"backend_version": "10.13.3"}, "built by 10.13.3, here is 10.3.0.30"),
        ({"cuda": "14.0"}, "knows CUDA 13.0 at most"),
    ],
)
def test_what_refuses_the_decoders_engine_refuses_it(
    make: Make, trt: FakeTensorRT, choice: str, changed: dict[str, Any], fact: str
) -> None:
    bundle = make(entry(**changed))
    with (
        pytest.raises(BundleError) as caught,
        opened_for(bundle, choice, sampling=GREEDY, backend="tensorrt"),
    ):
        pytest.fail("it was opened")
    assert fact in caught.value.fact
    assert fact in refused(bundle).fact
    assert not trt.deserialised


@pytest.mark.parametrize("choice", ["cp", "auto"])
def test_a_damaged_draft_engine_is_refused_before_it_is_used(make: Make, trt: FakeTensorRT, choice: str) -> None:
    bundle = make(entry())
    (bundle.path / "engines/sm89-fp32/draft.engine").write_text("engines/sm89-fp64/draft.engine")
    error = refused(bundle, choice)
    assert "draft.engine is altered" in error.fact
    assert "--rebuild" in error.next_step
    assert not trt.deserialised


def test_another_graph_in_its_place_is_refused_and_closed(make: Make, trt: FakeTensorRT, gpu: FakeCudart) -> None:
    bundle = make(entry())
    trt.engines[b"engines/sm89-fp32/draft.engine"] = trt.engines[b"engines/sm89-fp32/model.engine"]
    assert "draft.engine: it has" in refused(bundle).fact
    assert not gpu.live
    assert not gpu.streams


def test_what_was_opened_is_closed_where_drafts_are_too_long(make: Make, trt: FakeTensorRT, gpu: FakeCudart) -> None:
    bundle = make(entry())
    with pytest.raises(SessionError, match="cp proposes 3"):
        opened(bundle, "auto", 4)
    assert trt.deserialised == [b"engines/sm89-fp32/draft.engine"]
    assert not gpu.streams


@pytest.mark.gpu
def test_a_real_engine_says_what_onnx_runtime_says(tmp_path: Path) -> None:
    if (reason := gpu_tools.no_tensorrt()) is not None:
        pytest.skip(reason)
    bundle = exported_to(tmp_path, gpu_tools.form(), "fp16")
    engine_from_bundle(prepared_build(bundle, gpu_tools.build_request(max_batch_size=2)))
    bundle = read_bundle(bundle.path)
    heads = bundle.manifest.draft
    assert heads is not None
    ids = np.load(bundle.file(heads.vocabulary)).astype(np.int64)
    session, reference = open_draft_session(bundle, ids), OrtDraftSession(bundle.file(heads.file), ids, threads=1)
    rng = np.random.default_rng(0)
    for batch in (1, 1, 1, 2, 2, 1):
        features = rng.standard_normal((batch, heads.features)).astype(np.float32)
        # Far apart, so that rounding decides nothing about which components are taken, nor their order.
        noise = np.stack([100 * rng.permutation(heads.rank) for _ in range(batch)]).astype(np.float32)
        arguments = features, rng.integers(3, 200, batch), noise
        found, wanted = session.draft(*arguments), reference.draft(*arguments)
        np.testing.assert_allclose(found[0], wanted[0], atol=0.05)
        assert (np.abs(found[1] - wanted[1]).sum(-1) / 2).max() < 0.02, "total variation of a token"
    assert session.graph_launches >= 2
    session.close()
