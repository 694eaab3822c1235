"""When drafting several tokens pays, and from which context a smaller cache does."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.plan.step_cost import StepCost
from edgekit.runtime.drafting.expected import expected_tokens

#: Block lengths that are shown: tokens proposed per step, all verified at once.
BLOCKS = (1, 2, 4, 8, 16)
LONGEST_BLOCK = 256
#: Acceptance per proposed token for which the break-even length is told: 3.4 tokens a step of 4 proposals, where
#: TensorRT-Edge-LLM 0.9.0 reports 3.0 to 4.2 with EAGLE-3 on Qwen3 (which proposes trees).
USUAL_ACCEPTANCE = 0.8
#: A cache of half the size is said to pay once it makes a step this much faster.
WORTHWHILE = 0.10


@dataclass(frozen=True)
class Block:
    """One block length.

    Attributes:
        proposed: tokens drafted; `proposed + 1` positions are verified.
        relative_cost: of such a step over a step of one token, without the cost of drafting.
        needed_acceptance: chance per proposed token from which it pays; None where no chance suffices.
        tokens: expected per step at the usual acceptance.
        draft_budget: steps of one token that drafting may take before nothing is won, at that acceptance.
    """

    proposed: int
    relative_cost: float
    needed_acceptance: float | None
    tokens: float
    draft_budget: float


@dataclass(frozen=True)
class BreakEven:
    """Multi-token decoding on this machine.

    Attributes:
        free_positions: how many positions a step can verify before arithmetic takes longer than reading the weights;
            None without a known peak.
        longest_paying: largest number of proposed tokens that still beats plain decoding at `acceptance`; 0 if none.
    """

    blocks: tuple[Block, ...]
    free_positions: int | None
    longest_paying: int
    acceptance: float


def break_even(cost: StepCost, context: int, batch: int = 1, acceptance: float = USUAL_ACCEPTANCE) -> BreakEven:
    """Compare steps of several positions with steps of one."""
    one = cost.step(context, batch)
    tokens = expected_tokens((acceptance,) * LONGEST_BLOCK)

    def relative(proposed: int) -> float:
        return cost.step(context, batch, proposed + 1).seconds / one.seconds

    def block(proposed: int) -> Block:
        times = relative(proposed)
        budget = max(0.0, tokens[proposed] - times)
        return Block(proposed, times, needed_acceptance(times, proposed), tokens[proposed], budget)

    blocks = tuple(block(proposed) for proposed in BLOCKS)
    paying = [n for n in range(1, LONGEST_BLOCK + 1) if tokens[n] > relative(n)]
    free = None
    if one.compute_s:
        free = max(1, int((one.weights_s + one.cache_s) / one.compute_s))
    return BreakEven(blocks, free, max(paying, default=0), acceptance)


def needed_acceptance(cost: float, proposed: int) -> float | None:
    """The acceptance at which `expected_tokens` equals the cost, by bisection: they grow with it."""
    if cost <= 1:
        return 0.0
    if cost >= proposed + 1:
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens((middle,) * proposed)[-1] < cost else (low, middle)
    return high


@dataclass(frozen=True)
class CachePays:
    """Contexts, in tokens for each sequence.

    Attributes:
        equals_weights: where the cache's bytes per step are those of the weights.
        half_pays_from: from where a cache of half the size makes steps faster by `WORTHWHILE`.
    """

    equals_weights: float
    half_pays_from: float


def cache_pays(cost: StepCost, batch: int = 1) -> CachePays:
    """Solve for the context in t(M) = a + b M: weights and launches once, the cache in proportion."""
    at_one = cost.step(1, batch)
    per_token_s = at_one.cache_s
    fixed_s = at_one.weights_s + (at_one.launch_s or 0.0)
    # (fixed + half b M) (1 + gain) = fixed + b M
    tokens = fixed_s * WORTHWHILE / (per_token_s * (1 - 0.5 * (1 + WORTHWHILE)))
    return CachePays(at_one.weights_s / per_token_s, tokens)
