"""The loop with drafts gives what it gives without, whatever is drafted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edgekit.errors import PromptError
from edgekit.runtime.drafting.controller import Controller
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.fixed import FixedLength
from edgekit.runtime.drafting.ngram import NGramDrafter
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Event, GenerationOptions, Piece, PromptProgress, Truncated
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.fake_drafters import FakeDrafter, known, moody, wrong
from tests.runtime.fake_sessions import HashSession, ScriptSession
from tests.runtime.test_generate import BYTES, Numbers, finished

Say = Callable[[Sequence[int], int], Sequence[int]]
#: Drafters that know the text: what they say of it, by name.
SAYINGS: dict[str, Callable[[Sequence[int], int], Say]] = {
    "right": known,
    "wrong": wrong,
    "moody 1": lambda text, start: moody(text, start, 1),
    "moody 2": lambda text, start: moody(text, start, 2),
}


def run(
    session: Any, prompt: list[int], drafting: Drafting | None = None, decoder: Any = None, **options: Any
) -> list[Event]:
    options.setdefault("max_new_tokens", 24)
    cancelled = options.pop("cancelled", lambda: False)
    given = GenerationOptions(**options)
    return list(generate(session, decoder or Numbers(), prompt, given, drafting=drafting, cancelled=cancelled))


def fixed(say: Say, count: int = 3, **options: Any) -> Drafting:
    return Drafting([FakeDrafter(say, **options)], FixedLength(count))


def shown(events: list[Event]) -> tuple[Any, ...]:
    """Everything that a user sees."""
    end = finished(events)
    pieces = [event for event in events if isinstance(event, Piece | Truncated)]
    return pieces, end.reason, end.text, end.rest, end.tokens, end.statistics.dropped_tokens


@pytest.fixture(params=SAYINGS)
def saying(request: pytest.FixtureRequest) -> Callable[[Sequence[int], int], Say]:
    return SAYINGS[request.param]


CASES: dict[str, tuple[Callable[[], HashSession], list[int], dict[str, Any]]] = {
    "length": (HashSession, [1, 2, 3], {"max_new_tokens": 17}),
    "one token": (HashSession, [1, 2, 3], {"max_new_tokens": 1}),
    "two tokens": (HashSession, [1, 2, 3], {"max_new_tokens": 2}),
    "small chunks": (HashSession, [1, 2, 3, 4, 5], {"prompt_chunk": 2}),
    "chunks of one": (HashSession, [1, 2, 3, 4, 5], {"prompt_chunk": 1}),
    "context full": (lambda: HashSession(capacity=11), [1, 2, 3], {"max_new_tokens": 99}),
    "context of the prompt": (lambda: HashSession(capacity=3), [1, 2, 3], {}),
    "truncated": (lambda: HashSession(capacity=8), [40, 2, 3], {"on_full": "truncate-oldest", "max_new_tokens": 60}),
    "truncated with a start": (
        lambda: HashSession(capacity=9),
        [1, 2, 3],
        {"on_full": "truncate-oldest", "keep_first": 2, "max_new_tokens": 40},
    ),
    "smallest context": (
        lambda: HashSession(capacity=1), [1, 2], {"on_full": "truncate-oldest", "max_new_tokens": 9}
    ),
    "penalty": (HashSession, [1, 2, 3], {"sampling": SamplingOptions(repetition_penalty=1e6)}),
    "seed": (HashSession, [1, 2, 3], {"sampling": SamplingOptions(temperature=1.5, seed=5)}),
    "seed, filters": (
        HashSession,
        [1, 2, 3],
        {"sampling": SamplingOptions(temperature=1.2, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("case", CASES)
def test_what_is_shown_is_that_of_plain_decoding(case: str, count: int, saying: Any) -> None:
    session, prompt, options = CASES[case]
    plain_session, drafted_session = session(), session()
    plain = run(plain_session, prompt, **options)
    drafting = fixed(saying(finished(plain).tokens, len(prompt)), count)
    drafted = run(drafted_session, prompt, drafting, **options)
    assert shown(drafted) == shown(plain)
    assert drafted_session.cache == plain_session.cache, "nothing is left of what was refused or not shown"
    assert [event for event in drafted if isinstance(event, PromptProgress)] == [
        event for event in plain if isinstance(event, PromptProgress)
    ]


@pytest.mark.parametrize("stop", range(24))
def test_a_stop_token_at_any_place_of_a_draft(stop: int) -> None:
    text = finished(run(HashSession(), [1, 2, 3])).tokens
    options: dict[str, Any] = {"stop_tokens": frozenset([text[stop]])}
    plain_session, drafted_session = HashSession(), HashSession()
    plain = run(plain_session, [1, 2, 3], **options)
    drafted = run(drafted_session, [1, 2, 3], fixed(known(text, 3), 4), **options)
    assert finished(plain).reason == "stop-token"
    assert shown(drafted) == shown(plain)
    assert drafted_session.cache == plain_session.cache
    assert finished(drafted).statistics.generated_tokens == finished(plain).statistics.generated_tokens


@pytest.mark.parametrize(
    ("said", "stops"),
    [("one. END two", ("END",)), ("abcdefgh", ("cd",)), ("日本語と🙂です", ("🙂",)), ("hello hello", ("lo he",))],
)
def test_a_stop_string_within_a_draft(said: str, stops: tuple[str, ...]) -> None:
    ids = [*BYTES.encode(said), 0]
    options: dict[str, Any] = {"stop_strings": stops, "stop_tokens": frozenset([0]), "max_new_tokens": 99}
    plain_session, drafted_session = ScriptSession(ids), ScriptSession(ids)
    plain = run(plain_session, [9], decoder=BYTES, **options)
    drafted = run(drafted_session, [9], fixed(known(ids, 1), 4), decoder=BYTES, **options)
    assert finished(plain).reason == "stop-string"
    assert shown(drafted) == shown(plain)
    assert drafted_session.cache == plain_session.cache


def test_right_drafts_save_calls_and_wrong_ones_cost_none() -> None:
    text = finished(run(HashSession(), [1, 2, 3])).tokens
    session = HashSession()
    end = finished(run(session, [1, 2, 3], fixed(known(text, 3), 4, longest=4)))
    # A prompt, four steps of a token and four drafts, and the last three tokens.
    assert [len(call) for call in session.calls] == [3, 5, 5, 5, 5, 3]
    assert end.statistics.draft is not None
    assert (end.statistics.draft.steps, end.statistics.draft.tokens) == (5, 23)
    session = HashSession()
    run(session, [1, 2, 3], fixed(wrong(text, 3), 4, longest=4))
    assert len(session.calls) == 24


def test_drafts_run_neither_over_the_limit_nor_over_the_context() -> None:
    drafter = FakeDrafter(lambda tokens, count: [1] * count, longest=9)
    run(HashSession(capacity=12), [1, 2, 3], Drafting([drafter], FixedLength(9)), max_new_tokens=99)
    assert all(length - 1 + 1 + count <= 12 for length, count in drafter.asked)
    drafter = FakeDrafter(lambda tokens, count: [1] * count, longest=9)
    run(HashSession(), [1, 2, 3], Drafting([drafter], FixedLength(9)), max_new_tokens=6)
    assert all(length - 3 + count + 1 <= 6 for length, count in drafter.asked)
    assert drafter.asked[0] == (4, 4)


@pytest.mark.parametrize("after", range(1, 8))
def test_an_interrupt_leaves_a_beginning_and_a_usable_cache(after: int) -> None:
    text = finished(run(HashSession(), [1, 2, 3])).tokens
    session = HashSession()
    cache = PrefixCache(session)
    asked = iter([False] * after + [True])
    end = finished(run(cache, [1, 2, 3], fixed(moody(text, 3, 1)), cancelled=lambda: next(asked, True)))
    assert end.tokens == text[: len(end.tokens)]
    assert end.reason == "interrupted"
    assert session.cache == [1, 2, 3, *end.tokens][:-1]
    assert finished(run(cache, [1, 2, 3])).tokens == text


def test_a_full_context_is_refused_where_that_is_wanted() -> None:
    text = finished(run(HashSession(capacity=8), [1, 2, 3], max_new_tokens=99)).tokens
    drafting = fixed(known([*text, 1, 2, 3], 3), 4)
    with pytest.raises(PromptError, match="all 8 tokens are used, 6 of them generated"):
        run(HashSession(capacity=8), [1, 2, 3], drafting, on_full="error", max_new_tokens=None)


def test_a_second_turn_reuses_what_was_accepted() -> None:
    text = finished(run(HashSession(), [1, 2])).tokens
    session = HashSession(capacity=200)
    cache, drafting = PrefixCache(session), fixed(known(text, 2), 4)
    first = finished(run(cache, [1, 2], drafting))
    prompt = [1, 2, *first.tokens, 8, 9]
    session.calls.clear()
    second = finished(run(cache, prompt, drafting))
    assert session.calls[0] == [first.tokens[-1], 8, 9]
    assert second.tokens == finished(run(HashSession(capacity=200), prompt)).tokens


def test_drawn_drafts_are_made_without_a_seed_and_certain_ones_with_one() -> None:
    drawn: list[bool] = []

    def say(tokens: Sequence[int], count: int) -> Sequence[int]:
        return [7] * count

    class Watched(FakeDrafter):
        def propose(self, context: Any, count: int) -> Any:
            drawn.append(not context.sampling.greedy)
            return super().propose(context, count)

    for seed in (None, 3):
        drawn.clear()
        sampling = SamplingOptions(temperature=1.0, top_p=0.9, seed=seed)
        run(HashSession(), [1, 2], Drafting([Watched(say, drawn=True)], FixedLength(2)), sampling=sampling)
        assert set(drawn) == {seed is None}


class Featured(HashSession):
    """Its features at a position are the token there, and how many tokens there are up to it."""

    features: Any = None

    def forward(self, tokens: Any, keep: int = 1) -> Any:
        logits = super().forward(tokens, keep)
        ends = range(len(self.cache) - logits.shape[1], len(self.cache))
        self.features = np.array([[[self.cache[end], end + 1] for end in ends]], np.float32)
        return logits


@pytest.mark.parametrize("name", SAYINGS)
def test_features_are_those_of_the_positions_up_to_that_which_chose_the_last_token(name: str) -> None:
    text = finished(run(HashSession(), [1, 2, 3])).tokens
    whole = [1, 2, 3, *text]
    drafter = FakeDrafter(SAYINGS[name](text, 3))
    run(Featured(), [1, 2, 3], Drafting([drafter], FixedLength(4)))
    assert len(drafter.asked) > 4
    for (length, _), features in zip(drafter.asked, drafter.features, strict=True):
        assert features is not None
        # The last of `length` tokens was chosen by the position of the one before; known are those since the prompt.
        assert features.tolist() == [[whole[at], at + 1] for at in range(2, length - 1)]


def test_features_after_a_truncation() -> None:
    drafter = FakeDrafter(lambda tokens, count: [1] * count)
    session = Featured(capacity=8)
    run(session, [1, 2, 3], Drafting([drafter], FixedLength(2)), on_full="truncate-oldest", max_new_tokens=40)
    for (length, _), features in zip(drafter.asked, drafter.features, strict=True):
        assert features is not None
        assert features[-1, 1] == length - 1
        assert (np.diff(features[:, 1]) == 1).all()


def test_a_truncation_to_what_the_cache_begins_with() -> None:
    """All but the last token is in the cache, and of the position that chose it nothing is known any more."""
    drafter = FakeDrafter(lambda tokens, count: [1] * count)
    session = Featured(capacity=8)
    drafting = Drafting([drafter], FixedLength(2))
    events = run(session, [1] * 8, drafting, on_full="truncate-oldest", max_new_tokens=9)
    assert sum(isinstance(event, Truncated) for event in events) > 1
    assert drafter.features
    assert all(features is not None for features in drafter.features)


def test_a_copied_text_by_a_controller() -> None:
    """The prompt holds the answer: n-grams find it, and the controller takes them once plain steps are measured."""
    text = list(range(10, 200))
    session = ScriptSession(text, prompt=len(text))
    drafting = Drafting([NGramDrafter()], Controller())
    end = finished(run(session, text, drafting, max_new_tokens=190))
    assert list(end.tokens) == text
    assert end.statistics.draft is not None
    assert len(session.calls) < 190
    assert end.statistics.draft.sources["ngram"].accepted > 0


def test_statistics_of_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that passes 10 ms a position and 1 ms a draft."""
    clock = [0.0]
    monkeypatch.setattr("edgekit.runtime.statistics.time.perf_counter", lambda: clock[0])

    class Slow(HashSession):
        def forward(self, tokens: Any, keep: int = 1) -> Any:
            clock[0] += 0.010 + 0.002 * (tokens.shape[1] - 1)
            return super().forward(tokens, keep)

    text = finished(run(HashSession(), [1, 2, 3], max_new_tokens=13)).tokens
    right = known(text, 3)

    def say(tokens: Sequence[int], count: int) -> Sequence[int]:
        clock[0] += 0.001
        said = list(right(tokens, count))
        return (
            [said[0], (said[1] + 1) % 50] if len(tokens) < 10 and len(said) == 2 else said if len(tokens) < 12 else []
        )

    drafting = fixed(say, 2)
    draft = finished(run(Slow(), [1, 2, 3], drafting, max_new_tokens=13)).statistics.draft
    assert draft is not None
    # At 4, 6 and 8 tokens: two drafted, one accepted. At 10: both. Then a plain step for each of three.
    assert (draft.steps, draft.plain_steps, draft.tokens) == (7, 3, 12)
    source = draft.sources["fake"]
    assert (source.drafted, source.accepted) == (8, 5)
    assert source.acceptance == [1.0, 0.25]
    # Before the last step nothing is asked for: one token is left, which the model chooses.
    assert draft.draft_s == pytest.approx(0.006)
    assert draft.step_s == pytest.approx(4 * 0.014 + 3 * 0.010)
    assert draft.plain_step_s == pytest.approx(0.010)
    assert draft.speed_up is None, "plain steps were the last 30 ms of 92"
    document = draft.to_dict()
    assert document["tokens_per_step"] == pytest.approx(12 / 7)
    assert document["sources"]["fake"]["steps"] == {"2": 4}
    assert "1.71 tokens a step (5 of 8 drafted accepted)" in draft.summary()
    assert any("100% 25%" in line for line in draft.details())
    assert drafting.total.tokens == 12


def test_without_drafting_there_are_no_statistics_of_it() -> None:
    end = finished(run(HashSession(), [1]))
    assert end.statistics.draft is None
    assert end.statistics.to_dict()["draft"] is None
