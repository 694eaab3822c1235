"""Several texts at once, each with its own drafts, in one session whose cache has one length for all.

A row that accepts more than the others gets ahead of the common cache. Its surplus is kept: known tokens, which stand
at the start of its next block where the others draft. So nothing is chosen twice, every row's cache holds its own
tokens at its own places, and the step goes on by as much as its slowest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekit.errors import PromptError
from edgekit.runtime.drafting.interface import DraftContext, Drafter, Proposal
from edgekit.runtime.drafting.verify import verify
from edgekit.runtime.feature_trail import FeatureTrail
from edgekit.runtime.options import PROMPT_CHUNK
from edgekit.runtime.sampling import SamplingOptions
from edgekit.runtime.session import DecoderSession, Features

_NOTHING = Proposal((), (), "")


@dataclass
class _Row:
    """One text.

    Attributes:
        tokens: prompt and text; the last ones may not be in the cache yet.
        trail: features of its positions up to the one that chose the last token, and `seen` how many these are.
    """

    tokens: list[int]
    start: int
    generator: np.random.Generator
    trail: FeatureTrail = field(default_factory=FeatureTrail)
    seen: int = 0
    done: bool = False

    def add(self, chosen: Sequence[int], stop_tokens: frozenset[int], most: int) -> None:
        """Append tokens until the text is over; what comes after its end is dropped."""
        for token in chosen:
            if self.done:
                return
            self.tokens.append(token)
            self.done = token in stop_tokens or len(self.tokens) - self.start == most

    def read(self, features: Features | None, stop: int) -> None:
        """Positions before `stop` have been decoded; features [K, F] are those of the last of them."""
        new = stop - self.seen
        if features is not None and new > 0:
            self.trail.extend(features[-new:], new)
            self.seen = stop


@dataclass
class BatchResult:
    """Texts, a stop token included, and the calls of the engine after the prompts."""

    texts: list[list[int]] = field(default_factory=list)
    steps: int = 0


def generate_batch(
    session: DecoderSession,
    drafters: Sequence[Drafter],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    draft_tokens: int,
    sampling: SamplingOptions | None = None,
    stop_tokens: frozenset[int] = frozenset(),
) -> BatchResult:
    """Continue B prompts of one length; each text is what it would be alone, with greedy choice or a seed.

    Args:
        session: reset first.
        drafters: one for each row, or none for plain decoding.
        draft_tokens: proposed for each row and step, where its drafter has as many.
        sampling: greedy if None; row i takes its random numbers from `seed + i`.

    Raises:
        PromptError: the prompts are of different lengths, or text and prompt do not fit into the context.
        SessionError, DoesNotFit: see DecoderSession.forward; bundles of the form ort with keys and values take blocks
            of one text only.
    """
    options = sampling or SamplingOptions()
    _check(prompts, session.capacity, max_new_tokens)
    size = len(prompts[0])
    seeds = [None if options.seed is None else options.seed + i for i in range(len(prompts))]
    rows = [_Row(list(p), size, np.random.Generator(np.random.PCG64(s))) for p, s in zip(prompts, seeds, strict=True)]
    result = BatchResult()
    session.reset()
    tokens = np.array([row.tokens for row in rows], np.int64)
    for begin in range(0, size, PROMPT_CHUNK):
        logits = session.forward(np.ascontiguousarray(tokens[:, begin : begin + PROMPT_CHUNK]))
    for place, row in enumerate(rows):
        row.read(_features(session, place, None), size)
        first = verify(logits[place], _NOTHING, options, row.tokens, row.generator).token
        row.add([first], stop_tokens, max_new_tokens)

    while not all(row.done for row in rows):
        cached = session.length
        # A row that is over, or far ahead, does not limit the block; the others draft to its end.
        width = 1 + min(draft_tokens, session.capacity - cached - 1)
        proposals = [
            _proposal(row, drafters[place], width - (len(row.tokens) - cached), options) if drafters else _NOTHING
            for place, row in enumerate(rows)
        ]
        blocks = [[*row.tokens[cached:], *p.tokens][:width] for row, p in zip(rows, proposals, strict=True)]
        width = max(len(block) for row, block in zip(rows, blocks, strict=True) if not row.done)
        logits = session.forward(np.array([_padded(block, width) for block in blocks], np.int64), keep=width)
        result.steps += 1
        ends = []
        for place, (row, proposal) in enumerate(zip(rows, proposals, strict=True)):
            known = len(row.tokens) - cached
            if row.done:
                continue
            if known > width:
                ends.append(width)  # it only catches up: nothing new is chosen
                continue
            last = known - 1
            judged = logits[place, last : last + len(proposal.tokens) + 1]
            verdict = verify(judged, proposal, options, row.tokens, row.generator)
            here = last + verdict.accepted + 1
            row.read(_features(session, place, here), cached + here)
            row.add([*proposal.tokens[: verdict.accepted], verdict.token], stop_tokens, max_new_tokens)
            ends.append(known + verdict.accepted)
        session.rollback(cached + min(ends))
    result.texts = [row.tokens[size:] for row in rows]
    return result


def _proposal(row: _Row, drafter: Drafter, room: int, options: SamplingOptions) -> Proposal:
    """A draft of at most `room` tokens; none where the row has known tokens enough."""
    count = min(room, drafter.longest)
    if row.done or count < 1:
        return _NOTHING
    return drafter.propose(DraftContext(row.tokens, row.trail.known, options, row.generator), count)


def _padded(block: Sequence[int], width: int) -> list[int]:
    """To the common width: what fills it up is taken back in any case, or belongs to a row that is over."""
    return [*block[:width], *[0] * (width - len(block))]


def _features(session: DecoderSession, row: int, stop: int | None) -> Features | None:
    """Those of a row's kept positions [K, F] before `stop`."""
    return None if session.features is None else session.features[row, :stop]


def _check(prompts: Sequence[Sequence[int]], capacity: int, max_new_tokens: int) -> None:
    lengths = {len(prompt) for prompt in prompts}
    if len(lengths) != 1 or 0 in lengths:
        raise PromptError(
            "prompts of a batch have one length, of at least one token",
            f"they have {', '.join(map(str, sorted(lengths))) or 'none'}",
            "group prompts by length",
        )
    longest = lengths.pop() + max_new_tokens - 1
    if longest > capacity:
        raise PromptError(
            "prompts and texts must fit into the context", f"they take {longest} tokens, it holds {capacity}"
        )
