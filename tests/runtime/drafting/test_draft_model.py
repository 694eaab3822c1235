from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import SessionError
from edgekit.runtime.drafting.draft_model import DraftModelDrafter, check_same_tokens
from edgekit.runtime.sampling import SamplingOptions, distribution, sample
from tests.runtime.drafting.enumeration import PROMPT, Target, context, drafted_joint, enumerate_chance
from tests.runtime.fake_sessions import HashSession, ScriptSession

GREEDY, PLAIN = SamplingOptions(), SamplingOptions(temperature=1.0)


def logits_after(tokens: list[int], vocab: int = 50) -> np.ndarray:
    """What a HashSession says after these tokens."""
    session = HashSession(vocab)
    return session.forward(np.array([tokens], np.int64))[0, -1]


def proposed(drafter: DraftModelDrafter, tokens: list[int], count: int, options: SamplingOptions = GREEDY) -> Any:
    return drafter.propose(context(options, np.random.default_rng(0), tokens), count)


@pytest.mark.parametrize("options", [GREEDY, SamplingOptions(repetition_penalty=1.8)], ids=str)
def test_greedy_proposals_are_what_the_model_would_say(options: SamplingOptions) -> None:
    session = HashSession()
    drafter = DraftModelDrafter(session, longest=5)
    assert (drafter.name, drafter.longest) == ("model", 5)
    expected = [3, 1, 4]
    for _ in range(5):
        expected.append(sample(logits_after(expected), options, expected, np.random.default_rng(0)))
    proposal = proposed(drafter, [3, 1, 4], 5, options)
    assert list(proposal.tokens) == expected[3:]
    assert (proposal.distributions, proposal.source) == ((None,) * 5, "model")
    assert session.calls == [[3, 1, 4], *([token] for token in expected[3:7])]


def test_its_distributions_are_its_own_after_every_filter() -> None:
    options = SamplingOptions(temperature=1.4, top_k=5, repetition_penalty=1.2)
    proposal = proposed(DraftModelDrafter(HashSession()), [3, 1, 4], 4, options)
    for place, q in enumerate(proposal.distributions):
        before = [3, 1, 4, *proposal.tokens[:place]]
        wanted = distribution(logits_after(before), options, before)
        assert proposal.tokens[place] in q.ids
        assert q.ids.tolist() == np.flatnonzero(wanted).tolist()
        np.testing.assert_allclose(q.probabilities, wanted[q.ids], rtol=1e-12)


def test_its_cache_follows_what_was_accepted() -> None:
    """Whether all, some or none of it was taken, and after the context was cut: as a fresh model would say."""
    session = HashSession()
    drafter = DraftModelDrafter(session)
    tokens = [3, 1, 4]
    for accepted in (4, 2, 0, 3):
        proposal = proposed(drafter, tokens, 4)
        assert proposal.tokens == proposed(DraftModelDrafter(HashSession()), tokens, 4).tokens
        tokens += [*proposal.tokens[:accepted], 49]
    session.calls.clear()
    proposed(drafter, tokens, 1)
    assert session.calls == [tokens[-1:]], "what is known is not processed again"
    assert proposed(drafter, tokens[2:], 3).tokens == proposed(DraftModelDrafter(HashSession()), tokens[2:], 3).tokens


class Uncounted(list[int]):
    """A context that is not gone through token by token."""

    def __iter__(self) -> Any:
        raise AssertionError("each of its tokens was looked at")


def test_a_long_context_is_compared_as_a_whole() -> None:
    """A step's work in Python does not grow with the context; only the repetition penalty reads all of it."""
    drafter, tokens = DraftModelDrafter(HashSession(capacity=4096)), Uncounted(range(40))
    first = proposed(drafter, tokens, 3).tokens
    tokens += [*first, 7]
    wanted = proposed(DraftModelDrafter(HashSession(capacity=4096)), [*range(40), *first, 7], 3).tokens
    assert proposed(drafter, tokens, 3).tokens == wanted


def test_where_its_own_context_ends() -> None:
    session = HashSession(capacity=6)
    drafter = DraftModelDrafter(session)
    assert len(proposed(drafter, [1, 2, 3, 4], 8).tokens) == 3
    assert len(proposed(drafter, [1, 2, 3, 4, 5, 6], 8).tokens) == 1
    assert proposed(drafter, [1, 2, 3, 4, 5, 6, 7], 8).tokens == ()
    assert proposed(drafter, list(range(20)), 8).tokens == ()


def test_a_long_prompt_is_processed_in_chunks() -> None:
    session = ScriptSession([], vocab=50)
    proposed(DraftModelDrafter(session), [1] * 1100, 1)
    assert [len(call) for call in session.calls] == [512, 512, 76]


@pytest.mark.parametrize("options", [PLAIN, SamplingOptions(temperature=0.7, top_p=0.8), GREEDY], ids=str)
def test_it_is_lossless(options: SamplingOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    enumerate_chance(monkeypatch)
    drafter = DraftModelDrafter(HashSession(vocab=4))
    target = Target(4)
    found = drafted_joint(target, lambda branch: drafter.propose(context(options, branch, PROMPT), 2), 3, options)
    assert np.abs(found - target.joint(3, options)).max() < 1e-12


def test_closing_it_closes_the_model() -> None:
    session = HashSession()
    drafter = DraftModelDrafter(session)
    proposed(drafter, [1, 2], 1)
    drafter.close()
    assert session.length == 0


@dataclass
class Entry:
    name: str
    sha256: str


class FakeBundle:
    """As much of a bundle as is compared."""

    def __init__(self, name: str, vocab_size: int, digest: str | None) -> None:
        self.path = Path(name)
        self.manifest = self
        self.model = self
        self.vocab_size = vocab_size
        self.files = [Entry("model.onnx", name)]
        if digest is not None:
            self.files.append(Entry("tokenizer.json", digest))


def test_a_draft_model_has_the_same_tokens() -> None:
    model: Any = FakeBundle("large", 100, "a")
    same: Any = FakeBundle("small", 100, "a")
    check_same_tokens(model, same)
    other: Any = FakeBundle("small", 100, "b")
    with pytest.raises(SessionError, match="tokenizer.json of small differs from that of large"):
        check_same_tokens(model, other)
    padded: Any = FakeBundle("small", 128, "a")
    with pytest.raises(SessionError, match="small has 128 tokens, large has 100"):
        check_same_tokens(model, padded)
    bare: Any = FakeBundle("bare", 100, None)
    for pair in ((bare, bare), (bare, same), (model, bare)):
        with pytest.raises(SessionError, match="bare lists no tokenizer.json"):
            check_same_tokens(*pair)
