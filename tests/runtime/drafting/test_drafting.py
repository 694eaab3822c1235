"""Who is asked, what is taken, and what is learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgekit.runtime.drafting.acceptance import Source
from edgekit.runtime.drafting.controller import Offer
from edgekit.runtime.drafting.drafting import Drafting
from edgekit.runtime.drafting.fixed import FixedLength
from edgekit.runtime.drafting.interface import DraftContext, Proposal
from edgekit.runtime.drafting.ngram import NGramDrafter
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.fake_drafters import FakeDrafter

COPY, HEADS = Source("copy"), Source("heads")


class Chosen:
    """A policy that follows a list of sources (None: nothing) and lengths, and notes what it is told."""

    plain_s: float | None = None

    def __init__(self, *choices: tuple[Source, int] | None) -> None:
        self.choices = list(choices)
        self.offers: list[list[Offer]] = []
        self.recorded: list[tuple[object, ...]] = []
        self.observed: list[tuple[object, ...]] = []
        self.asked_why = 0

    def choose(self, offers: Sequence[Offer]) -> tuple[Offer, int] | None:
        self.offers.append(list(offers))
        choice = self.choices.pop(0)
        return next(((offer, choice[1]) for offer in offers if choice and offer.source == choice[0]), None)

    def record(self, *arguments: object) -> None:
        self.recorded.append(arguments)

    def observe(self, *arguments: object) -> None:
        self.observed.append(arguments)

    def why_off(self) -> str | None:
        self.asked_why += 1
        return None


def context(*tokens: int) -> DraftContext:
    return DraftContext(tokens, None, SamplingOptions(), np.random.default_rng(0))


def drafters() -> tuple[FakeDrafter, FakeDrafter]:
    copy = FakeDrafter(lambda tokens, count: [5, 6, 7], name="copy", longest=3, instant=True)
    return copy, FakeDrafter(lambda tokens, count: [8] * count, name="heads", longest=2)


def test_the_instant_are_asked_first_and_the_others_when_chosen() -> None:
    copy, heads = drafters()
    policy = Chosen((COPY, 2), (HEADS, 1), None)
    drafting = Drafting([copy, heads], policy)
    assert drafting.propose(context(1, 2), 9).tokens == (5, 6)
    assert policy.offers[0] == [Offer(COPY, 3, made=True), Offer(HEADS, 2)]
    assert heads.asked == []
    assert drafting.propose(context(1, 2), 9).tokens == (8,)
    assert heads.asked == [(2, 1)]
    assert drafting.propose(context(1, 2), 9).tokens == ()
    assert len(copy.asked) == 3


def test_offers_are_no_longer_than_what_is_left() -> None:
    policy = Chosen(None, None)
    drafting = Drafting(drafters(), policy)
    drafting.propose(context(1), 1)
    assert policy.offers[0] == [Offer(COPY, 1, made=True), Offer(HEADS, 1)]
    copy, heads = drafters()
    assert Drafting([copy, heads], policy).propose(context(1), 0).tokens == ()
    assert copy.asked == heads.asked == []
    assert policy.offers[1] == []


def test_who_has_nothing_to_say_makes_no_offer() -> None:
    policy = Chosen(None)
    Drafting([FakeDrafter(lambda tokens, count: [], instant=True)], policy).propose(context(1), 4)
    assert policy.offers == [[]]


def test_what_became_of_it_is_told() -> None:
    policy = Chosen((HEADS, 2), None)
    drafting = Drafting(drafters(), policy)
    statistics = drafting.begin()
    drafting.propose(context(1), 9)
    drafting.record(1, 0.1, 0.2)
    drafting.propose(context(1, 8, 3), 9)
    drafting.record(0, 0.0, 0.3)
    assert policy.recorded == [(HEADS, 2, 1, 0.1, 0.2), (None, 0, 0, 0.0, 0.3)]
    assert policy.asked_why == 2, "once a step, for the answer and the conversation"
    assert (statistics.steps, statistics.plain_steps, statistics.tokens) == (2, 1, 3)
    again = drafting.begin()
    assert again.steps == 0
    assert drafting.total.steps == 2


@pytest.mark.parametrize(
    ("came", "right"), [((5, 6, 7), 3), ((5, 6, 7, 1), 3), ((5, 9), 1), ((9,), 0), ((5, 6), None), ((), None)]
)
def test_a_copy_that_was_not_verified_is_compared_with_what_came(came: tuple[int, ...], right: int | None) -> None:
    policy = Chosen(None, None)
    drafting = Drafting(drafters(), policy)
    drafting.propose(context(1, 2), 9)
    drafting.propose(context(1, 2, *came), 9)
    assert policy.observed == ([] if right is None else [(COPY, 3, right)])


def test_a_copy_that_was_verified_is_not_counted_twice() -> None:
    policy = Chosen((COPY, 3), None)
    drafting = Drafting(drafters(), policy)
    drafting.propose(context(1, 2), 9)
    drafting.record(3, 0.0, 0.1)
    drafting.propose(context(1, 2, 5, 6, 7, 1), 9)
    assert policy.observed == []


def test_another_generation_is_compared_with_nothing() -> None:
    policy = Chosen(None, None)
    drafting = Drafting(drafters(), policy)
    drafting.propose(context(1, 2), 9)
    drafting.begin()
    drafting.propose(context(1, 2, 5, 6, 7), 9)
    assert policy.observed == []


def test_a_fixed_length_takes_the_first_offer() -> None:
    policy = FixedLength(4)
    assert policy.choose([]) is None
    assert policy.choose([Offer(COPY, 3, made=True), Offer(HEADS, 8)]) == (Offer(COPY, 3, made=True), 3)
    assert policy.choose([Offer(HEADS, 8)]) == (Offer(HEADS, 8), 4)
    assert policy.plain_s is None
    policy.record(HEADS, 4, 0, 0.0, 1.0)
    assert policy.plain_s is None
    policy.record(None, 0, 0, 0.0, 1.0)
    assert policy.plain_s == pytest.approx(1.0)
    assert policy.why_off() is None


def test_drafters_are_closed() -> None:
    both = drafters()
    Drafting(both, Chosen()).close()
    assert all(drafter.closed for drafter in both)


@pytest.mark.parametrize(
    ("alike", "grade"), [(2, 2), (3, 3), (4, 4), (5, 4), (6, 6), (7, 6), (8, 8), (15, 8), (20, 16)]
)
def test_the_grade_of_a_copy_is_how_much_of_the_text_repeats(alike: int, grade: int) -> None:
    repeated = list(range(100, 100 + alike))
    tokens = [1, *repeated, 2, 3, *repeated]
    found = NGramDrafter().propose(context(*tokens), 4)
    assert found.tokens[:2] == (2, 3)
    assert found.grade == grade


def test_the_first_tokens_of_a_proposal() -> None:
    proposal = Proposal((1, 2, 3), (None, None, None), "copy", 4)
    assert proposal.first(2) == Proposal((1, 2), (None, None), "copy", 4)
