"""The decode loop: process what is pending with what was drafted, judge it, show the tokens, make the last pending."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from edgekit.errors import PromptError
from edgekit.runtime.drafting.drafting import NO_DRAFT, Drafting
from edgekit.runtime.drafting.interface import DraftContext
from edgekit.runtime.drafting.verify import verify
from edgekit.runtime.options import Event, Finished, GenerationOptions, Piece, PromptProgress, Reason, Truncated
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.sampling import seeded
from edgekit.runtime.session import DecoderSession
from edgekit.runtime.statistics import Statistics
from edgekit.runtime.text import Decoder, StopStrings, TextStream


def generate(
    session: DecoderSession | PrefixCache,
    decoder: Decoder,
    prompt: Sequence[int],
    options: GenerationOptions,
    *,
    drafting: Drafting | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Generate a text after `prompt`.

    With drafting a step may give several tokens. They are those of plain decoding when greedy or with a seed, as far as
    the engine rounds alike for one token and for several, and distributed alike otherwise.

    Args:
        session: a PrefixCache, to process only what its cache does not hold yet; or a session, which is reset.
        prompt: at least one token.
        drafting: proposes tokens, which are verified together; None for plain decoding.
        cancelled: asked before each call of the engine; True ends the text with reason "interrupted".

    Yields:
        PromptProgress, Truncated and Piece as they happen, Finished at the end.

    Raises:
        PromptError: the prompt is empty or too long, or the context is full and `on_full` is "error".
        SessionError, DoesNotFit: see DecoderSession.forward and Drafting.propose.
    """
    cache = session if isinstance(session, PrefixCache) else PrefixCache(session)
    capacity = cache.session.capacity
    check_length(len(prompt), capacity, options)
    seed, generator = seeded(options.sampling)
    statistics = Statistics(prompt_tokens=len(prompt), seed=None if options.sampling.greedy else seed)
    stream, stops = TextStream(decoder, context=prompt), StopStrings(options.stop_strings)
    # An array, because the repetition penalty reads it as one every time.
    history, shown = array("q", prompt), [""]
    # Drafts that are no chance leave a seed's random numbers to the text alone, however many are made.
    drafted_by = options.sampling if options.sampling.seed is None else replace(options.sampling, temperature=0.0)
    if drafting is not None:
        statistics.draft = drafting.begin()

    def finished(reason: Reason) -> Finished:
        rest = "" if stops.found is not None else stops.push(stream.flush()) + stops.flush()
        return Finished(reason, "".join(shown) + rest, rest, tuple(history[len(prompt) :]), statistics)

    def truncated(tokens: list[int]) -> tuple[list[int], Truncated]:
        kept = without_oldest(tokens, capacity, options.keep_first)
        statistics.dropped_tokens += len(tokens) - len(kept)
        return kept, Truncated(len(tokens) - len(kept))

    context = list(prompt)
    if len(context) > capacity:
        context, event = truncated(context)
        yield event
    statistics.reused_tokens = cache.match(context)
    pending = context[statistics.reused_tokens :]
    statistics.processed_tokens = len(pending)

    proposal, moved = NO_DRAFT, False
    while True:
        # What the last position was is not known where another text took its place.
        active = drafting if statistics.generated_tokens and len(pending) == 1 and not moved else None
        moved = False
        with statistics.timed() as drafted:
            if active is not None:
                # With the pending token they have to fit, and one more token is chosen after them.
                most = min(cache.room, _left(options, statistics)) - 1
                proposal = active.propose(DraftContext(context, cache.features(), drafted_by, generator), most)
        pieces = [
            pending[start : start + options.prompt_chunk] for start in range(0, len(pending), options.prompt_chunk)
        ]
        done = 0
        for piece in pieces:
            if cancelled():
                yield finished("interrupted")
                return
            with statistics.timed() as ran:
                logits = cache.extend_block([*piece, *proposal.tokens], len(proposal.tokens) + 1)
            done += len(piece)
            if len(pending) > 1:
                yield PromptProgress(done, len(pending))

        with statistics.timed() as judged:
            verdict = verify(logits, proposal, options.sampling, history, generator)
            cache.drop(len(proposal.tokens) - verdict.accepted)
        if active is not None:
            active.record(verdict.accepted, drafted.seconds, ran.seconds + judged.seconds)
        chosen = (*proposal.tokens[: verdict.accepted], verdict.token)
        proposal = NO_DRAFT
        for place, token in enumerate(chosen):
            history.append(token)
            context.append(token)
            statistics.generated_tokens += 1
            reason: Reason | None = "stop-token" if token in options.stop_tokens else None
            if reason is None:
                shown.append(stops.push(stream.push(token)))
                yield Piece(token, shown[-1])
                if stops.found is not None:
                    reason = "stop-string"
                elif statistics.generated_tokens == options.max_new_tokens:
                    reason = "length"
            if reason is not None:
                # As in plain decoding the last token shown is not in the cache.
                cache.drop(len(chosen) - 1 - place)
                yield finished(reason)
                return

        pending = [verdict.token]
        if cache.room == 0:
            if options.on_full == "stop":
                yield finished("context-full")
                return
            if options.on_full == "error":
                raise _full(f"all {capacity} tokens are used, {statistics.generated_tokens} of them generated")
            context, event = truncated(context)
            yield event
            pending, moved = context[cache.match(context) :], True


def _left(options: GenerationOptions, statistics: Statistics) -> int:
    """Tokens that may still be generated."""
    return sys.maxsize if options.max_new_tokens is None else options.max_new_tokens - statistics.generated_tokens


def check_length(prompt: int, capacity: int, options: GenerationOptions) -> None:
    """Refuse a prompt that cannot be answered: `prompt` tokens in a context of `capacity`. Raises PromptError."""
    if prompt == 0:
        raise PromptError("a prompt must hold at least one token", "it is empty")
    if prompt > capacity and options.on_full != "truncate-oldest":
        raise PromptError(
            "a prompt must fit into the context",
            f"it has {prompt} tokens, the context holds {capacity}",
            "shorten it, allow a longer --max-context, or drop its oldest tokens with --on-full truncate-oldest",
        )
    # The last token chosen is never appended.
    if options.on_full == "error" and options.max_new_tokens and prompt + options.max_new_tokens - 1 > capacity:
        raise _full(
            f"the prompt has {prompt} tokens, {options.max_new_tokens} are to be generated, "
            f"the context holds {capacity}"
        )


def without_oldest(tokens: list[int], capacity: int, keep_first: int) -> list[int]:
    """The first `keep_first` tokens and the newest, in three quarters of the capacity (at least one token)."""
    size = max(1, capacity - max(1, capacity // 4))
    first = min(keep_first, size - 1)
    return tokens[:first] + tokens[len(tokens) - (size - first) :]


def _full(fact: str) -> PromptError:
    return PromptError(
        "prompt and answer must fit into the context",
        fact,
        "lower --max-new-tokens, allow a longer --max-context, or choose another --on-full",
    )
