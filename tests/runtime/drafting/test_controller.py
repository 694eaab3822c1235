"""The controller on simulated machines, whose best length is known by arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from edgekit.runtime.drafting.acceptance import Source
from edgekit.runtime.drafting.controller import CREDIT, MOST, Controller, Offer
from tests.runtime.drafting.simulation import HEADS, World, best, simulate

#: Measured on two cores, SmolLM2-135M as int4: milliseconds of 1 to 9 positions.
CPU_MS = (56, 66, 68, 93, 95, 111, 130, 153, 157)


def cpu(positions: int) -> float:
    return CPU_MS[positions - 1] / 1e3


def gpu(positions: int) -> float:
    return 0.005 * (1 + 0.01 * (positions - 1))


def jump(positions: int) -> float:
    """Another kernel for more than one position."""
    return 0.015 * (1.0 if positions == 1 else 2.4 + 0.03 * positions)


def in_proportion(positions: int) -> float:
    """Nothing is won by verifying at once."""
    return 0.015 * positions


MACHINES: dict[str, Callable[[int], float]] = {
    "cpu": cpu, "gpu": gpu, "jump": jump, "in proportion": in_proportion
}  # fmt: skip


def world(step: Callable[[int], float], chance: float, **others: object) -> World:
    return World(step, lambda k: 0.1 * step(1), lambda tokens, source, place: chance, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(("machine", "chance"), [("cpu", 0.6), ("cpu", 0.9), ("gpu", 0.6), ("gpu", 0.9)])
def test_a_good_drafter_nearly_reaches_the_best_length(machine: str, chance: float) -> None:
    setting = world(MACHINES[machine], chance)
    speed, length = best(setting, chance)
    found = [simulate(setting, 800, seed=seed) for seed in range(4)]
    mean = sum(each.speed for each in found) / 4
    assert speed * 0.88 < mean < speed * 1.1, f"{mean:.2f} of {speed:.2f} with {length}: {found[0].lengths}"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("tokens", [100, 700])
def test_a_drafter_that_is_always_wrong_costs_at_most_three_percent(machine: str, tokens: int) -> None:
    speeds = [simulate(world(MACHINES[machine], 0.0), tokens, seed=seed).speed for seed in range(6)]
    # The noise of a single step is 5 %, so of the whole it is 0.5 % or less.
    assert sum(speeds) / 6 > 0.975
    assert min(speeds) > 0.96


@pytest.mark.parametrize("machine", ["jump", "in proportion"])
def test_where_verifying_never_pays_it_turns_itself_off(machine: str) -> None:
    setting = world(MACHINES[machine], 0.3)
    assert best(setting, 0.3)[1] == 0
    done = simulate(setting, 700)
    assert done.speed > 0.97
    assert done.lengths[0] > 0.97 * done.lengths.total()


def test_a_prior_too_good_to_be_true_costs_no_more() -> None:
    speeds = [
        simulate(world(gpu, 0.0), 300, seed=seed, controller=Controller({HEADS: (0.99,) * 8})).speed
        for seed in range(4)
    ]
    assert min(speeds) > 0.965


def test_drafting_that_takes_unexpectedly_long_costs_no_more() -> None:
    setting = World(gpu, lambda k: 0.006, lambda tokens, source, place: 0.5)
    assert simulate(setting, 600).speed > 0.97


def test_a_change_of_acceptance_is_noticed_both_ways() -> None:
    """Right for 600 tokens, wrong for 600, right again."""
    setting = World(cpu, lambda k: 0.005, lambda tokens, source, place: 0.0 if 600 <= tokens < 1200 else 0.85)
    controller = Controller()
    good = simulate(setting, 600, controller=controller)
    assert good.speed > 1.5
    bad = simulate(setting, 600, seed=1, controller=controller, start=600)
    assert bad.speed > 0.97 - MOST / 600, "what was won before may be risked, up to a limit"
    assert bad.lengths[0] > 0.9 * bad.lengths.total()
    again = simulate(setting, 600, seed=2, controller=controller, start=1200)
    assert again.speed > 1.3


def test_losses_of_a_whole_conversation_are_what_counts() -> None:
    """Eight turns that begin well and end badly: nothing is lost in sum."""
    setting = World(cpu, lambda k: 0.005, lambda tokens, source, place: 0.8 if tokens % 100 < 50 else 0.0)
    controller = Controller()
    turns = [simulate(setting, 100, seed=s, controller=controller, start=100 * s) for s in range(8)]
    assert sum(t.plain_s for t in turns) > 0.99 * sum(t.spent_s for t in turns)


@pytest.mark.parametrize("chance", [0.0, 0.8])
def test_noise_and_hold_ups(chance: float) -> None:
    setting = world(cpu, chance, noise=0.15, held_up=0.01)
    speeds = [simulate(setting, 600, seed=seed).speed for seed in range(5)]
    assert sum(speeds) / 5 > (0.95 if chance == 0 else 0.8 * best(setting, chance)[0])


def test_steps_that_become_slower_with_the_context_turn_nothing_off() -> None:
    setting = world(gpu, 0.8, drift=lambda tokens: 1 + tokens / 400)
    done = simulate(setting, 1200)
    assert done.speed > 0.85 * best(setting, 0.8)[0]


def test_copies_are_taken_when_they_are_offered_and_heads_otherwise() -> None:
    copy = Source("ngram", 8)

    def offers(tokens: int, dice: random.Random) -> list[Offer]:
        return [Offer(copy, 8, made=True)] * (tokens % 100 < 40) + [Offer(HEADS, 4)]

    setting = World(
        gpu, lambda k: 0.001, lambda tokens, source, place: 0.95 if source == copy else 0.6, offers
    )  # fmt: skip
    done = simulate(setting, 1000)
    assert done.lengths[8] >= 30
    assert sum(done.lengths[k] for k in (2, 3, 4)) >= 100
    assert done.speed > 2.2


def test_a_bad_source_does_not_spoil_a_good_one() -> None:
    noise = Source("ngram", 2)
    setting = World(
        cpu,
        lambda k: 0.005,
        lambda tokens, source, place: 0.05 if source == noise else 0.8,
        lambda tokens, dice: [Offer(noise, 8, made=True), Offer(HEADS, 4)],
    )
    alone = World(cpu, lambda k: 0.005, setting.chance, lambda tokens, dice: [Offer(HEADS, 4)])
    with_both = simulate(setting, 800, controller=Controller({noise: (0.2,)}))
    assert with_both.speed > 0.93 * simulate(alone, 800).speed


def test_the_first_steps_are_plain_and_so_is_one_now_and_then() -> None:
    controller = Controller()
    plain = []
    for step in range(300):
        choice = controller.choose([Offer(HEADS, 4)])
        length = 0 if choice is None else choice[1]
        plain += [step] * (length == 0)
        controller.record(HEADS if length else None, length, length, 0.0005 if length else 0.0, gpu(length + 1))
    assert plain[:3] == [0, 1, 2]
    assert 6 <= len(plain) <= 25
    assert max(b - a for a, b in pairwise(plain)) <= 65


def test_the_account_bears_every_refusal() -> None:
    """Step by step: no draft is made whose refusal it could not pay, and it pays what it is said to."""
    controller = Controller()
    for _ in range(3):
        controller.record(None, 0, 0, 0.0, 0.010)
    assert controller.account == pytest.approx(CREDIT + 3 * 0.015)
    choice = controller.choose([Offer(HEADS, 8)])
    assert choice is not None
    assert choice[1] == 1, "a second position costs half a step at the worst, and drafting another half"
    controller.record(HEADS, 1, 0, 0.002, 0.014)
    assert controller.account == pytest.approx(CREDIT + 4 * 0.015 + 1 - 1.01 * 1.6, abs=0.03)
    controller.record(HEADS, 1, 0, 0.002, 0.025)
    assert controller.account < 0
    assert controller.choose([Offer(HEADS, 8)]) is None


def test_a_source_that_is_off_is_tried_after_4_steps_then_8_up_to_128() -> None:
    """Losses before it was turned off, as any good drafter has them, lengthen no pause."""
    controller = Controller()
    for _ in range(3):
        controller.record(None, 0, 0, 0.0, 0.010)
    for accepted in (1, 0, 1, 0, 1, 0) * 4:
        controller.record(HEADS, 1, accepted, 0.001, 0.0105)
    controller.record(None, 0, 0, 0.0, 0.010)
    # From now on nothing is accepted, and the account never forbids a try.
    pauses, waited, was_on = [], 0, True
    for _ in range(1500):
        controller.account = MOST
        choice = controller.choose([Offer(HEADS, 1)])
        waited += choice is None and not controller._must_measure()
        if choice is None:
            controller.record(None, 0, 0, 0.0, 0.010)
            continue
        on = controller.why_off() is None
        assert was_on or not on, "off for good"
        was_on = on
        if not on:
            pauses.append(waited)
        waited = 0
        controller.record(HEADS, 1, 0, 0.001, 0.0105)
    assert pauses[:8] == [4, 8, 16, 32, 64, 128, 128, 128]


def test_what_was_won_is_kept() -> None:
    controller = Controller()
    for _ in range(3):
        controller.record(None, 0, 0, 0.0, 0.010)
    for _ in range(20):
        controller.record(HEADS, 4, 4, 0.001, 0.011)
    assert controller.account == MOST


def test_what_was_not_verified_teaches_too() -> None:
    """A copy that is offered and not taken is compared with what the model said."""
    controller, copy = Controller(), Source("ngram", 8)
    for _ in range(3):
        controller.record(None, 0, 0, 0.0, 0.010)
    for _ in range(60):
        controller.observe(copy, 8, 0)
    assert controller.choose([Offer(copy, 8, made=True)]) is None
    for _ in range(80):
        controller.observe(copy, 8, 8)
    choice = controller.choose([Offer(copy, 8, made=True)])
    assert choice is not None


def test_without_offers_steps_are_plain() -> None:
    controller = Controller()
    for _ in range(5):
        controller.record(None, 0, 0, 0.0, 0.010)
    assert controller.choose([]) is None
