"""What every decoder session must do, on every engine and with every kind of cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.contract import SEQUENCE_AXES
from edgekit.errors import SessionError
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.fixed import FixedLength
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.session import DecoderSession
from edgekit.runtime.signature import first_tokens
from tests.runtime.drafting.fake_drafters import FakeDrafter, moody
from tests.runtime.subjects import Subject


def close(subject: Subject, got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=subject.tolerance, rtol=0)


def test_it_is_a_decoder_session(subject: Subject, session: Any) -> None:
    checked: DecoderSession = session
    assert checked.capacity == subject.limit
    assert checked.length == 0
    assert checked.name == subject.name
    assert all(words in checked.description for words in subject.words)


def test_it_agrees_with_another_engine(subject: Subject, session: Any) -> None:
    tokens = subject.tokens

    def run(session: Any) -> list[np.ndarray]:
        found = [session.forward(tokens[:, :50], keep=0)]
        found += [session.forward(tokens[:, i : i + 1]) for i in range(50, 60)]
        session.rollback(41)
        found += [session.forward(tokens[:, 100:130], keep=4), session.forward(tokens[:, 130:131])]
        found += [array for layer in session.caches() for array in layer.values()]
        session.rollback(0)
        return [*found, session.forward(tokens[:, 300:590], keep=290)]

    reference = subject.reference()
    for got, want in zip(run(session), run(reference), strict=True):
        close(subject, got, want)
    reference.close()


@pytest.mark.parametrize("keep", [0, 1, 2, 7, 8, 100])
def test_kept_positions_are_the_last_ones(subject: Subject, session: Any, keep: int) -> None:
    whole = session.forward(subject.tokens[:, :8], keep=0)
    session.reset()
    kept = session.forward(subject.tokens[:, :8], keep=keep)
    count = min(keep, 8) if keep else 8
    close(subject, kept, whole[:, -count:])
    # What was asked last must not linger.
    assert session.forward(subject.tokens[:, 8:9]).shape == (1, 1, subject.vocab)
    assert session.forward(subject.tokens[:, 9:12]).shape == (1, 1, subject.vocab)


@pytest.mark.parametrize("cuts", [[1], [1, 2, 3], [5, 250], [255, 256, 257], [511, 512, 513]])
def test_pieces_give_what_the_whole_gives(subject: Subject, session: Any, cuts: list[int]) -> None:
    whole = session.forward(subject.tokens, keep=0)
    session.reset()
    pieces = [session.forward(np.ascontiguousarray(piece), keep=0) for piece in np.split(subject.tokens, cuts, axis=1)]
    close(subject, np.concatenate(pieces, axis=1), whole)


def test_single_steps_give_what_the_whole_gives(subject: Subject, session: Any) -> None:
    whole = session.forward(subject.tokens[:, :40], keep=0)
    session.reset()
    steps = [session.forward(subject.tokens[:, i : i + 1]) for i in range(40)]
    close(subject, np.concatenate(steps, axis=1), whole)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 540])
def test_rollback_gives_what_a_fresh_session_gives(subject: Subject, session: Any, length: int) -> None:
    session.forward(subject.tokens[:, :540])
    session.rollback(length)
    assert session.length == length
    other = subject.tokens[:, 300:340]
    after = session.forward(other, keep=0)
    session.reset()
    fresh = session.forward(np.concatenate([subject.tokens[:, :length], other], axis=1), keep=40)
    close(subject, after, fresh)


def test_reset_gives_what_a_fresh_session_gives(subject: Subject, session: Any) -> None:
    first = session.forward(subject.tokens[:, :20], keep=0)
    session.forward(subject.tokens[:, 20:300])
    session.reset()
    assert session.length == 0
    assert np.array_equal(session.forward(subject.tokens[:, :20], keep=0), first)


def test_logits_belong_to_the_caller(subject: Subject, session: Any) -> None:
    first = session.forward(subject.tokens[:, :3])
    copy = first.copy()
    session.forward(subject.tokens[:, 3:4])
    assert np.array_equal(first, copy)


def test_tokens_are_left_alone_and_need_not_be_contiguous(subject: Subject, session: Any) -> None:
    tokens = subject.tokens[:, :20].copy()
    want = session.forward(tokens[:, ::2].copy(), keep=0)
    session.reset()
    assert np.array_equal(session.forward(tokens[:, ::2], keep=0), want)
    assert np.array_equal(tokens, subject.tokens[:, :20])


def test_a_batch(subject: Subject, session: Any) -> None:
    rows = subject.tokens[:, :60].reshape(3, 20)
    alone = []
    for row in rows:
        session.reset()
        alone.append(session.forward(row[None], keep=0))
    session.reset()
    together = session.forward(rows, keep=0)
    close(subject, together, np.concatenate(alone))
    step = session.forward(rows[:, :1])
    assert step.shape == (3, 1, subject.vocab)
    session.reset()
    close(subject, session.forward(rows[:1], keep=0), alone[0])


def test_caches_can_be_looked_at(subject: Subject, session: Any) -> None:
    assert len(session.caches()) in (0, subject.layers)
    session.forward(subject.tokens[:, :30])
    caches = session.caches()
    assert len(caches) == subject.layers
    for layer in caches:
        assert {suffix: array.shape for suffix, array in layer.items()} == subject.cache_shapes(30)
    session.rollback(10)
    session.forward(subject.tokens[:, 10:12])
    for now, earlier in zip(session.caches(), caches, strict=True):
        assert {suffix: array.shape for suffix, array in now.items()} == subject.cache_shapes(12)
        for suffix, tensor in now.items():
            kept = first_tokens(10, SEQUENCE_AXES[suffix])
            close(subject, tensor[kept], earlier[suffix][kept])


def test_memory_beyond_the_tokens_is_never_read(subject: Subject) -> None:
    def run(poisoned: bool) -> list[np.ndarray]:
        session = subject.open()
        found = []
        for start, end in ((0, 7), (7, 8), (8, 9), (9, 40), (40, 41), (41, 600)):
            found.append(session.forward(subject.tokens[:, start:end], keep=0))
            if poisoned:
                subject.poison(session)
        session.rollback(5)
        if poisoned:
            subject.poison(session)
        found.append(session.forward(subject.tokens[:, 9:30], keep=0))
        session.close()
        return found

    for clean, poisoned in zip(run(False), run(True), strict=True):
        assert np.array_equal(clean, poisoned)


def test_the_context_is_the_smaller_of_what_is_asked_and_allowed(subject: Subject) -> None:
    session = subject.open(capacity=16)
    assert session.capacity == 16
    session.forward(subject.tokens[:, :16])
    with pytest.raises(SessionError) as caught:
        session.forward(subject.tokens[:, :1])
    assert "16" in caught.value.fact
    assert session.length == 16
    session.close()
    for wrong in (0, -1, subject.limit + 1):
        with pytest.raises(SessionError) as caught:
            subject.open(capacity=wrong)
        assert str(wrong) in caught.value.fact
        assert str(subject.limit) in caught.value.fact


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
        (np.zeros((1, 2049), np.int64), 1, "2049 more"),
    ],
)
def test_malformed_calls_are_refused_and_change_nothing(
    subject: Subject, session: Any, tokens: np.ndarray, keep: int, fact: str
) -> None:
    session.forward(subject.tokens[:, :5])
    with pytest.raises(SessionError) as caught:
        session.forward(tokens, keep)
    assert fact in caught.value.fact
    assert session.length == 5
    after = session.forward(subject.tokens[:, 5:9], keep=0)
    session.reset()
    close(subject, after, session.forward(subject.tokens[:, :9], keep=4))


@pytest.mark.parametrize("length", [-1, 6])
def test_rollback_forward_is_refused(subject: Subject, session: Any, length: int) -> None:
    session.forward(subject.tokens[:, :5])
    with pytest.raises(SessionError, match="go back"):
        session.rollback(length)
    assert session.length == 5


def test_a_closed_session_is_refused(subject: Subject, session: Any) -> None:
    session.forward(subject.tokens[:, :5])
    session.close()
    assert session.length == 0
    with pytest.raises(SessionError, match="closed"):
        session.forward(subject.tokens[:, :1])
    session.close()


class Numbers:
    def decode(self, ids: list[int]) -> str:
        return "".join(f"{token} " for token in ids)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_a_generation_with_reuse_is_a_fresh_one(subject: Subject, session: Any, chunk: int) -> None:
    """The whole loop over the real engine: chunks, prefix reuse and rollback change no token."""
    options = GenerationOptions(max_new_tokens=12, prompt_chunk=chunk)

    def end(*arguments: Any) -> Finished:
        event = list(generate(*arguments, options))[-1]
        assert isinstance(event, Finished)
        return event

    cache = PrefixCache(session)
    first = end(cache, Numbers(), subject.tokens[0, :50].tolist())
    prompt = [*subject.tokens[0, :50].tolist(), *first.tokens[:8], *subject.tokens[0, 50:60].tolist()]
    reused = end(cache, Numbers(), prompt)
    assert reused.statistics.reused_tokens == 58
    assert reused.tokens == end(session, Numbers(), prompt).tokens


def test_refused_drafts_leave_nothing_behind(subject: Subject, session: Any) -> None:
    """Blocks of which a part is taken back, of every length, give the logits of a fresh prefill."""
    tokens = subject.tokens
    session.forward(tokens[:, :20])
    rows, place = [], 20
    for length, kept in ((5, 0), (2, 1), (9, 4), (3, 2), (6, 0), (1, 0), (8, 7)):
        # Right up to `kept` drafted tokens, then others.
        block = np.concatenate([tokens[:, place : place + kept + 1], tokens[:, 300 : 300 + length - kept]], axis=1)
        rows.append(session.forward(block, keep=length + 1)[:, : kept + 1])
        session.rollback(place + kept + 1)
        place += kept + 1
    caches = session.caches()
    session.reset()
    close(subject, np.concatenate(rows, axis=1), session.forward(tokens[:, :place], keep=place - 20))
    for drafted, fresh in zip(caches, session.caches(), strict=True):
        for suffix, tensor in drafted.items():
            close(subject, tensor, fresh[suffix])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_generation_with_drafts_is_a_plain_one(subject: Subject, session: Any, seed: int) -> None:
    prompt, options = subject.tokens[0, :30].tolist(), GenerationOptions(max_new_tokens=24)

    def end(drafting: Drafting | None) -> Finished:
        event = list(generate(session, Numbers(), prompt, options, drafting=drafting))[-1]
        assert isinstance(event, Finished)
        return event

    plain = end(None)
    drafted = end(Drafting([FakeDrafter(moody(plain.tokens, 30, seed, subject.vocab))], FixedLength(4)))
    assert drafted.tokens == plain.tokens
    assert drafted.statistics.draft is not None
    assert 0 < drafted.statistics.draft.sources["fake"].accepted < drafted.statistics.draft.sources["fake"].drafted
