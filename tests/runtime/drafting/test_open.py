"""What --draft opens: on real tiny bundles with and without draft heads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.errors import BundleError, SessionError
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.open import drafting_for, opened_for, repeats
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.session import session_from_bundle
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.export.tiny_heads import export_with_heads, written_heads
from tests.parity.tiny_models import write_checkpoint
from tests.runtime.test_generate import Numbers

GREEDY, WARM = SamplingOptions(), SamplingOptions(temperature=1.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("c") / "llama", "llama", num_hidden_layers=2))


@pytest.fixture(scope="module")
def with_heads(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("heads")
    heads = written_heads(folder / "heads.safetensors", checkpoint, feature_layers=(1, 2))
    return export_with_heads(checkpoint, folder / "bundle", heads, draft_components=2)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bare") / "bundle"))


def names(drafting: Drafting | None) -> list[str]:
    assert drafting is not None
    return [drafter.name for drafter in drafting._drafters]


def edited(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    """A copy whose manifest has other fields."""
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    document = {**json.loads((bundle.path / "manifest.json").read_text()), **changes}
    (folder / "manifest.json").write_text(json.dumps(document))
    return read_bundle(folder)


def test_each_choice_opens_its_drafters(with_heads: Bundle, bare: Bundle) -> None:
    assert names(drafting_for(with_heads, "auto", sampling=GREEDY, threads=1)) == ["ngram", "cp"]
    assert names(drafting_for(with_heads, "cp", sampling=GREEDY, threads=1)) == ["cp"]
    assert names(drafting_for(with_heads, "ngram", sampling=GREEDY)) == ["ngram"]
    assert names(drafting_for(bare, "auto", sampling=GREEDY)) == ["ngram"]
    assert names(drafting_for(bare, bare.path, sampling=GREEDY, threads=1)) == ["model"]
    assert drafting_for(with_heads, "off", sampling=GREEDY) is None


@pytest.mark.parametrize("choice", ["auto", "cp", "ngram"])
@pytest.mark.parametrize("count", [None, 1, 3])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingOptions(temperature=0.8, seed=4)], ids=["greedy", "seed"])
def test_the_answer_is_that_of_plain_decoding(
    with_heads: Bundle, choice: str, count: int | None, sampling: SamplingOptions
) -> None:
    session = session_from_bundle(with_heads, threads=1)
    prompt = np.random.default_rng(0).integers(3, 200, 20).tolist() * 2
    options = GenerationOptions(sampling, max_new_tokens=40)

    def end(drafting: Drafting | None) -> Finished:
        event = list(generate(session, Numbers(), prompt, options, drafting=drafting))[-1]
        assert isinstance(event, Finished)
        return event

    drafting = drafting_for(with_heads, choice, count, sampling=sampling, threads=1)
    drafted = end(drafting)
    assert drafted.tokens == end(None).tokens
    assert drafted.statistics.draft is not None
    if count is not None and choice != "ngram":
        assert drafted.statistics.draft.sources["cp"].drafted > 0


def test_by_default_an_answer_that_is_to_be_the_same_each_time_is(bare: Bundle, tmp_path: Path) -> None:
    integers = edited(bare, tmp_path, dtype="int4")
    assert repeats(bare)
    assert not repeats(integers)
    assert repeats(edited(bare, tmp_path / "half", dtype="fp16"))
    assert repeats(edited(bare, tmp_path / "tensorrt", dtype="int4", form="tensorrt")), "its activations are halves"
    for sampling in (GREEDY, SamplingOptions(temperature=0.5, seed=1)):
        assert drafting_for(integers, None, sampling=sampling) is None
        assert names(drafting_for(integers, "auto", sampling=sampling)) == ["ngram"], "asked for, it drafts"
        assert names(drafting_for(bare, None, sampling=sampling)) == ["ngram"]
    assert names(drafting_for(integers, None, sampling=WARM)) == ["ngram"]


def test_heads_that_are_not_there_are_refused_with_what_makes_them(bare: Bundle) -> None:
    with pytest.raises(SessionError) as caught:
        drafting_for(bare, "cp", sampling=GREEDY)
    assert str(bare.path) in caught.value.fact
    assert "edgekit draft train" in caught.value.next_step
    assert "edgekit export CHECKPOINT -o BUNDLE --draft" in caught.value.next_step


def test_a_draft_model_of_other_tokens_is_refused(bare: Bundle, with_heads: Bundle, tmp_path: Path) -> None:
    manifest = json.loads((bare.path / "manifest.json").read_text())
    other = edited(bare, tmp_path, model={**manifest["model"], "vocab_size": 77})
    with pytest.raises(SessionError, match="77 tokens"):
        drafting_for(bare, other.path, sampling=GREEDY)
    with pytest.raises(BundleError):
        drafting_for(bare, tmp_path / "nothing", sampling=GREEDY)


def test_drafts_longer_than_the_heads_are_refused(with_heads: Bundle) -> None:
    for choice in ("cp", "auto"):
        with pytest.raises(SessionError) as caught:
            drafting_for(with_heads, choice, 4, sampling=GREEDY, threads=1)
        assert "4 were asked for, cp proposes 3" in caught.value.fact
        assert "--draft-tokens 3" in caught.value.next_step
    assert names(drafting_for(with_heads, "ngram", 20, sampling=GREEDY)) == ["ngram"]


def test_a_vocabulary_that_is_none_is_refused(with_heads: Bundle, tmp_path: Path) -> None:
    draft = with_heads.manifest.draft
    assert draft is not None
    broken = edited(with_heads, tmp_path)
    (tmp_path / draft.vocabulary).unlink()
    for content, fact in ((np.zeros((2, 2), np.int32), "int32 [2, 2]"), (np.zeros(3), "float64 [3]")):
        np.save(tmp_path / draft.vocabulary, content)
        with pytest.raises(BundleError, match="a draft vocabulary is a list of tokens") as caught:
            drafting_for(broken, "cp", sampling=GREEDY)
        assert fact in caught.value.fact


def test_what_training_measured_is_expected_at_first(with_heads: Bundle, tmp_path: Path) -> None:
    entry = json.loads((with_heads.path / "manifest.json").read_text())["draft"]
    rates = {"greedy": [0.9, 0.8, 0.7], "sampled": [0.6, 0.5, 0.4]}
    bundle = edited(with_heads, tmp_path, draft={**entry, "acceptance": rates})

    def expected(sampling: SamplingOptions, found: Bundle = bundle) -> list[float]:
        drafting = drafting_for(found, "cp", sampling=sampling, threads=1)
        assert drafting is not None
        return drafting._policy.acceptance.chances(("cp", 0), 3)  # type: ignore[attr-defined,no-any-return]

    assert expected(GREEDY) == pytest.approx([0.9, 0.8, 0.7])
    assert expected(WARM) == pytest.approx([0.6, 0.5, 0.4])
    assert expected(SamplingOptions(temperature=1.0, seed=1)) == pytest.approx([0.9, 0.8, 0.7])
    assert len(set(expected(GREEDY, with_heads))) == 1, "nothing is known of heads whose training told nothing"


@pytest.mark.parametrize("choice", ["cp", "auto", "itself"])
def test_session_and_drafters_are_closed_together(with_heads: Bundle, ort_sessions: list[Any], choice: str) -> None:
    choice = str(with_heads.path) if choice == "itself" else choice
    with opened_for(with_heads, choice, sampling=GREEDY, threads=1, capacity=40) as (session, drafting):
        assert session.capacity == 40
        assert drafting is not None
        assert [each._session is None for each in ort_sessions] == [False, False]
    assert [each._session is None for each in ort_sessions] == [True, True]
    with (
        pytest.raises(RuntimeError, match="within"),
        opened_for(with_heads, choice, sampling=GREEDY, threads=1),
    ):
        raise RuntimeError("within")
    assert [each._session is None for each in ort_sessions] == [True] * 4


def test_what_cannot_be_opened_leaves_nothing_open(with_heads: Bundle, bare: Bundle, ort_sessions: list[Any]) -> None:
    def refuse(bundle: Bundle, choice: str, fact: str, **options: Any) -> None:
        with (
            pytest.raises(SessionError, match=fact),
            opened_for(bundle, choice, sampling=GREEDY, threads=1, **options),
        ):
            pytest.fail("it was opened")

    refuse(bare, "cp", "has none")
    refuse(with_heads, "auto", "context", capacity=10**6)
    assert ort_sessions == [], "refused before weights are read"
    refuse(with_heads, "auto", "cp proposes 3", count=4)
    assert [each._session is None for each in ort_sessions] == [True, True]


def test_a_draft_model_is_read_once_and_holds_no_more_than_the_context(
    bare: Bundle, ort_sessions: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = bare.manifest.cache.capacity_limit
    cache = json.loads((bare.path / "manifest.json").read_text())["cache"]
    short = edited(bare, tmp_path / "short", cache={**cache, "capacity_limit": 50})
    read: list[object] = []

    def reading(path: Any) -> Bundle:
        read.append(path)
        return read_bundle(path)

    monkeypatch.setattr("edgekit.bundle.read_bundle", reading)
    for draft, capacity, held in ((bare, 60, 60), (short, 60, 50), (bare, None, limit)):
        ort_sessions.clear()
        read.clear()
        with opened_for(bare, draft.path, sampling=GREEDY, threads=1, capacity=capacity) as (session, _):
            assert session.capacity == (capacity or limit)
        assert [each.capacity for each in ort_sessions] == [capacity or limit, held]
        assert read == [draft.path]
