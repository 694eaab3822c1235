from __future__ import annotations

from typing import Any

import pytest

from edgekit.errors import EdgekitError, PromptError, SessionError
from edgekit.runtime.generate import generate, without_oldest
from edgekit.runtime.options import Event, Finished, GenerationOptions, Piece, PromptProgress, Truncated
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.session import DecoderSession
from tests.runtime.fake_sessions import HashSession, ScriptSession
from tests.runtime.test_text import Tokenizers

BYTES = Tokenizers("byte-level")


class Numbers:
    """A decoder whose tokens read as "5 "."""

    def decode(self, ids: list[int]) -> str:
        return "".join(f"{token} " for token in ids)


def run(session: DecoderSession | PrefixCache, prompt: list[int], decoder: Any = None, **options: Any) -> list[Event]:
    options.setdefault("max_new_tokens", 12)
    cancelled = options.pop("cancelled", lambda: False)
    return list(generate(session, decoder or Numbers(), prompt, GenerationOptions(**options), cancelled=cancelled))


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    pieces = "".join(event.text for event in events if isinstance(event, Piece))
    assert events[-1].text == pieces + events[-1].rest, "the pieces and the rest are the text"
    return events[-1]


def greedy(prompt: list[int], count: int, vocab: int = 50) -> list[int]:
    """What a session that sees everything afresh each time would say."""
    tokens = list(prompt)
    for _ in range(count):
        session = HashSession(vocab)
        session.cache = list(tokens)
        tokens.append(int(session.row().argmax()))
    return tokens[len(prompt) :]


def test_greedy_is_the_most_likely_token_each_time() -> None:
    end = finished(run(HashSession(), [1, 2, 3]))
    assert list(end.tokens) == greedy([1, 2, 3], 12)
    assert end.reason == "length"


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8, 100])
def test_the_prompt_in_chunks_is_the_prompt(chunk: int) -> None:
    prompt = [5, 4, 3, 2, 1, 0, 9]
    session = HashSession()
    events = run(session, prompt, prompt_chunk=chunk)
    assert list(finished(events).tokens) == greedy(prompt, 12)
    sizes = [len(call) for call in session.calls]
    chunks = -(-len(prompt) // chunk)
    assert all(size <= chunk for size in sizes[:chunks])
    assert sum(sizes[:chunks]) == len(prompt)
    assert sizes[chunks:] == [1] * 11, "the last token is chosen, not appended"
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert [event.done for event in progress] == [min(chunk * (i + 1), 7) for i in range(chunks)]
    assert {event.total for event in progress} == {7}


def test_a_session_starts_empty_and_a_prefix_cache_goes_on() -> None:
    session = HashSession()
    session.cache = [7, 7, 7]
    assert list(finished(run(session, [1, 2])).tokens) == greedy([1, 2], 12)
    cache = PrefixCache(session)
    first = finished(run(cache, [1, 2]))
    prompt = [1, 2, *first.tokens, 8, 9]
    session.calls.clear()
    second = finished(run(cache, prompt))
    assert list(second.tokens) == greedy(prompt, 12)
    # The last token chosen was never appended, so it is processed with the new ones.
    assert session.calls[0] == [first.tokens[-1], 8, 9]
    assert second.statistics.reused_tokens == len(prompt) - 3
    assert second.statistics.processed_tokens == 3


def test_a_prompt_that_departs_from_the_cache_rolls_it_back() -> None:
    session = HashSession()
    cache = PrefixCache(session)
    run(cache, [1, 2, 3, 4, 5])
    session.calls.clear()
    end = finished(run(cache, [1, 2, 9, 4]))
    assert list(end.tokens) == greedy([1, 2, 9, 4], 12)
    assert session.calls[0] == [9, 4]


def test_the_same_prompt_again_processes_its_last_token_only() -> None:
    session = HashSession()
    cache = PrefixCache(session)
    first = finished(run(cache, [1, 2, 3]))
    session.calls.clear()
    again = finished(run(cache, [1, 2, 3]))
    assert again.tokens == first.tokens
    assert session.calls[0] == [3]


def test_a_stop_token_ends_the_text_without_being_in_it() -> None:
    end = finished(run(ScriptSession([10, 11, 2, 12]), [0], stop_tokens=frozenset([2, 3])))
    assert end.reason == "stop-token"
    assert end.tokens == (10, 11, 2)
    assert end.text == "10 11 "
    assert end.statistics.generated_tokens == 3


def test_a_stop_token_in_the_prompt_stops_nothing() -> None:
    assert finished(run(ScriptSession([10, 2], prompt=2), [2, 2], stop_tokens=frozenset([2]))).text == "10 "


@pytest.mark.parametrize(
    ("said", "stops", "text", "reason"),
    [
        ("one. END two", ("END",), "one. ", "stop-string"),
        ("one. EN two", ("END",), "one. EN two", "stop-token"),
        ("one. EN", ("END",), "one. EN", "stop-token"),
        ("END", ("END",), "", "stop-string"),
        ("日本語", ("本",), "日", "stop-string"),
        ("a🙂b", ("🙂",), "a", "stop-string"),
        ("hello hello", ("lo he",), "hel", "stop-string"),
    ],
)
def test_stop_strings_across_tokens(said: str, stops: tuple[str, ...], text: str, reason: str) -> None:
    session = ScriptSession([*BYTES.encode(said), 0])
    events = run(session, [9], BYTES, stop_strings=stops, stop_tokens=frozenset([0]), max_new_tokens=99)
    end = finished(events)
    assert (end.text, end.reason) == (text, reason)
    shown = ""
    for event in events[:-1]:
        shown += event.text if isinstance(event, Piece) else ""
        assert text.startswith(shown), "nothing is shown that has to be taken back"


@pytest.mark.parametrize("text", ["日本語🙂", "👩‍👩‍👧‍👦", "é"])
def test_streamed_characters_are_whole(text: str) -> None:
    ids = BYTES.encode(text)
    events = run(ScriptSession(ids), [9], BYTES, max_new_tokens=len(ids))
    pieces = [event.text for event in events if isinstance(event, Piece)]
    assert "".join(pieces) == text
    assert len(pieces) == len(ids)
    assert not any("�" in piece for piece in pieces)


def test_a_text_cut_inside_a_character_ends_before_it() -> None:
    ids = BYTES.encode("ok🙂")
    assert finished(run(ScriptSession(ids), [9], BYTES, max_new_tokens=len(ids) - 1)).text == "ok"


def test_a_held_back_stop_string_is_shown_at_the_length_limit() -> None:
    ids = BYTES.encode("abEN")
    events = run(ScriptSession(ids), [9], BYTES, max_new_tokens=len(ids), stop_strings=("END",))
    assert finished(events).rest == "EN"
    assert finished(events).text == "abEN"


def test_seeds_repeat_a_text_and_are_reported() -> None:
    def tokens(**sampling: Any) -> Finished:
        return finished(run(HashSession(), [1, 2], sampling=SamplingOptions(temperature=1.5, **sampling)))

    assert tokens(seed=3).tokens == tokens(seed=3).tokens != tokens(seed=4).tokens
    drawn = tokens()
    assert drawn.statistics.seed is not None
    assert tokens(seed=drawn.statistics.seed).tokens == drawn.tokens
    assert finished(run(HashSession(), [1, 2])).statistics.seed is None, "greedy needs none"


def test_the_repetition_penalty_sees_prompt_and_answer() -> None:
    """With a penalty so strong that no token comes twice, the 50 tokens run through the vocabulary."""
    sampling = SamplingOptions(repetition_penalty=1e6)
    end = finished(run(HashSession(vocab=50, capacity=100), [1, 2, 3], sampling=sampling, max_new_tokens=20))
    assert len({1, 2, 3, *end.tokens}) == 23


def test_an_interrupt_stops_between_two_steps() -> None:
    asked = iter([False, False, False, True])
    events = run(HashSession(), [1, 2], cancelled=lambda: next(asked))
    end = finished(events)
    assert end.reason == "interrupted"
    assert len(end.tokens) == 3


def test_an_interrupt_during_the_prompt_leaves_a_usable_cache() -> None:
    session = HashSession()
    cache = PrefixCache(session)
    asked = iter([False, True])
    end = finished(run(cache, [1, 2, 3, 4, 5], cancelled=lambda: next(asked), prompt_chunk=2))
    assert (end.reason, end.tokens, end.text) == ("interrupted", (), "")
    assert cache.tokens == (1, 2)
    assert list(finished(run(cache, [1, 2, 3, 4, 5])).tokens) == greedy([1, 2, 3, 4, 5], 12)


def test_the_context_may_be_filled_to_the_last_token() -> None:
    """Capacity 8, prompt 3: five more fit, and a sixth is chosen without being appended."""
    session = HashSession(capacity=8)
    end = finished(run(session, [1, 2, 3], max_new_tokens=100))
    assert end.reason == "context-full"
    assert list(end.tokens) == greedy([1, 2, 3], 6)
    assert session.length == 8


def test_a_prompt_as_long_as_the_context_gives_one_token() -> None:
    end = finished(run(HashSession(capacity=3), [1, 2, 3]))
    assert (end.reason, len(end.tokens)) == ("context-full", 1)


def test_a_limit_met_with_the_context_counts_as_the_limit() -> None:
    assert finished(run(HashSession(capacity=8), [1, 2, 3], max_new_tokens=6)).reason == "length"


@pytest.mark.parametrize("policy", ["stop", "error"])
def test_a_prompt_longer_than_the_context_is_refused_with_numbers(policy: str) -> None:
    session = HashSession(capacity=4)
    with pytest.raises(PromptError) as caught:
        run(session, [1, 2, 3, 4, 5], on_full=policy, max_new_tokens=None)
    assert "5 tokens" in caught.value.fact
    assert "4" in caught.value.fact
    assert "truncate-oldest" in caught.value.next_step
    assert session.calls == []


def test_error_refuses_before_the_first_token_what_cannot_fit() -> None:
    session = HashSession(capacity=8)
    with pytest.raises(PromptError) as caught:
        run(session, [1, 2, 3], on_full="error", max_new_tokens=7)
    assert "3 tokens" in caught.value.fact
    assert "7 are to be generated" in caught.value.fact
    assert session.calls == []
    assert finished(run(session, [1, 2, 3], on_full="error", max_new_tokens=6)).reason == "length"


def test_error_without_a_limit_refuses_when_the_context_is_full() -> None:
    with pytest.raises(PromptError, match="all 8 tokens are used, 6 of them generated"):
        run(HashSession(capacity=8), [1, 2, 3], on_full="error", max_new_tokens=None)


def test_truncation_gives_up_the_oldest_and_processes_the_rest_again() -> None:
    """Capacity 8: full with 3 + 5 tokens, of which the newest 6 (three quarters) stay."""
    session = HashSession(capacity=8)
    events = run(session, [40, 2, 3], on_full="truncate-oldest", max_new_tokens=7)
    end = finished(events)
    assert end.reason == "length"
    before = greedy([40, 2, 3], 6)
    kept = [40, 2, 3, *before][-6:]
    assert list(end.tokens) == [*before, *greedy(kept, 1)]
    assert [event for event in events if isinstance(event, Truncated)] == [Truncated(3)]
    assert end.statistics.dropped_tokens == 3
    assert session.calls[-1] == kept


def test_truncation_keeps_the_first_tokens_if_asked() -> None:
    session = HashSession(capacity=8)
    events = run(session, [1, 2, 3], on_full="truncate-oldest", max_new_tokens=7, keep_first=2)
    before = greedy([1, 2, 3], 6)
    kept = [1, 2, *before[-4:]]
    assert list(finished(events).tokens) == [*before, *greedy(kept, 1)]
    assert session.calls[-1] == kept[2:], "what is kept at the start is still in the cache"


def test_truncation_goes_on_for_as_long_as_it_takes() -> None:
    events = run(HashSession(capacity=8), [1, 2, 3], on_full="truncate-oldest", max_new_tokens=100)
    assert len(finished(events).tokens) == 100
    assert finished(events).statistics.dropped_tokens == sum(e.dropped for e in events if isinstance(e, Truncated)) > 90


def test_a_long_prompt_is_truncated_with_notice() -> None:
    prompt = list(range(20))
    events = run(HashSession(capacity=8), prompt, on_full="truncate-oldest", max_new_tokens=2)
    assert events[0] == Truncated(14)
    assert list(finished(events).tokens) == greedy(prompt[-6:], 2)


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_truncation_in_the_smallest_contexts(capacity: int) -> None:
    events = run(HashSession(capacity=capacity), [1, 2, 3, 4], on_full="truncate-oldest", max_new_tokens=9)
    assert len(finished(events).tokens) == 9


def test_without_oldest() -> None:
    assert without_oldest(list(range(9)), 8, 0) == [3, 4, 5, 6, 7, 8]
    assert without_oldest(list(range(9)), 8, 1) == [0, 4, 5, 6, 7, 8]
    assert without_oldest(list(range(9)), 8, 99) == [0, 1, 2, 3, 4, 8], "the newest token always stays"
    assert without_oldest([1, 2], 1, 0) == [2]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(PromptError, match="at least one token"):
        run(HashSession(), [])


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"max_new_tokens": 0}, "0"),
        ({"prompt_chunk": 0}, "0"),
        ({"stop_strings": ("a", "")}, "empty"),
        ({"on_full": "sometimes"}, "'sometimes'"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], fact: str) -> None:
    with pytest.raises(EdgekitError) as caught:
        GenerationOptions(**options)
    assert fact in caught.value.fact


def test_an_error_of_the_engine_comes_through() -> None:
    class Broken(HashSession):
        def forward(self, tokens: Any, keep: int = 1) -> Any:
            raise SessionError("the engine broke")

    with pytest.raises(SessionError, match="the engine broke"):
        run(Broken(), [1])


def test_statistics_leave_out_the_time_of_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("edgekit.runtime.statistics.time.perf_counter", lambda: clock[0])

    class Slow(HashSession):
        def forward(self, tokens: Any, keep: int = 1) -> Any:
            clock[0] += 0.5 * tokens.shape[1]
            return super().forward(tokens, keep)

    events = []
    for event in generate(Slow(), Numbers(), [1, 2, 3, 4], GenerationOptions(max_new_tokens=5)):
        clock[0] += 1000
        events.append(event)
    statistics = finished(events).statistics
    assert statistics.prompt_s == 2.0
    assert statistics.prompt_tokens_per_s == 2.0
    assert statistics.decode_s == 2.0
    assert statistics.decode_tokens_per_s == 2.0
    assert statistics.generated_tokens == 5
    assert statistics.to_dict()["decode_tokens_per_s"] == 2.0
    assert "4 tokens" in statistics.summary()
    assert "2.0 tokens/s" in statistics.summary()


def test_statistics_of_a_single_token_have_no_decode_rate() -> None:
    statistics = finished(run(HashSession(), [1], max_new_tokens=1)).statistics
    assert statistics.decode_tokens_per_s is None
    assert "None" not in statistics.summary()
