"""Golden texts, and sessions held to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BundleError, PromptError
from edgekit.kit.golden import Golden, golden_from_session, read_golden, write_golden
from edgekit.kit.parity import golden_parity
from tests.runtime.fake_sessions import HashSession

PROMPTS = [[1, 2, 3], [7], [4, 4, 9, 11]]


@pytest.fixture
def golden() -> Golden:
    return golden_from_session(HashSession(), PROMPTS, 6)


def test_a_golden_text_is_what_the_session_says(golden: Golden) -> None:
    assert [list(text.prompt) for text in golden.texts] == PROMPTS
    for text in golden.texts:
        for i, (token, logits) in enumerate(zip(text.continuation, text.logits, strict=True)):
            session = HashSession()
            session.cache = [*text.prompt, *text.continuation[:i]]
            assert np.array_equal(session.row(), logits)
            assert int(logits.argmax()) == token


def test_it_is_read_as_it_was_written(golden: Golden, tmp_path: Path) -> None:
    write_golden(golden, tmp_path)
    found = read_golden(tmp_path)
    assert found.made_by == "fake"
    for one, other in zip(golden.texts, found.texts, strict=True):
        assert (one.prompt, one.continuation) == (other.prompt, other.continuation)
        assert np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize("damage", ["json", "short", "dtype", "pickle", "missing"])
def test_damaged_golden_texts_are_refused(golden: Golden, tmp_path: Path, damage: str) -> None:
    write_golden(golden, tmp_path)
    logits = np.load(tmp_path / "logits.npy")
    if damage == "json":
        (tmp_path / "texts.json").write_text('{"texts": [{"prompt": 3}]}')
    elif damage == "short":
        np.save(tmp_path / "logits.npy", logits[:-1])
    elif damage == "dtype":
        np.save(tmp_path / "logits.npy", logits.astype(np.float64))
    elif damage == "pickle":
        np.save(tmp_path / "logits.npy", np.array([object()]), allow_pickle=True)
    else:
        (tmp_path / "logits.npy").unlink()
    with pytest.raises(BundleError, match="golden"):
        read_golden(tmp_path)


@pytest.mark.parametrize("prompts", [[], [[1], []], [[1] * 60]])
def test_prompts_that_cannot_be_continued_are_refused(prompts: list[list[int]]) -> None:
    with pytest.raises(PromptError, match="golden text"):
        golden_from_session(HashSession(), prompts, 6)


def test_the_same_session_passes(golden: Golden) -> None:
    found = golden_parity(HashSession(), golden, "float32")
    assert found.passed
    assert found.top1 == 1
    assert found.greedy_prefix == found.tokens == (6, 6, 6)
    assert {mode: worst.relative_error for mode, worst in found.stages.items()} == {"decode": 0, "whole": 0}


class Broken(HashSession):
    """Wrong only in one way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, tokens: np.ndarray, keep: int = 1) -> np.ndarray:
        logits = super().forward(tokens, keep)
        if self.how == "decode" and tokens.shape[1] == 1 and self.length > 1:
            logits = logits + np.random.default_rng(0).standard_normal(logits.shape).astype(np.float32)
        if self.how == "whole" and keep > 1:
            logits = logits[:, ::-1]
        if self.how == "nan":
            logits[..., 3] = np.nan
        if self.how == "half":
            logits = logits.astype(np.float16).astype(np.float32)
        return logits


@pytest.mark.parametrize("how", ["decode", "whole", "nan"])
@pytest.mark.parametrize("activations", ["float32", "float16"])
def test_a_session_that_differs_fails_and_says_where(golden: Golden, how: str, activations: str) -> None:
    found = golden_parity(Broken(how), golden, activations)
    assert not found.passed
    assert found.failure is not None
    assert found.failure.startswith("decode: " if how != "whole" else "whole: ")
    assert found.to_dict()["passed"] is False


def test_half_precision_is_within_its_own_tolerance_only(golden: Golden) -> None:
    assert golden_parity(Broken("half"), golden, "float16").passed
    assert not golden_parity(Broken("half"), golden, "float32").passed
