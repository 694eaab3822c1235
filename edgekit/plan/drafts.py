"""What drafting is expected to win on a machine: tokens of a step by their chances, over what the step costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle import MANIFEST_NAME, Bundle, DraftInfo, read_bundle
from edgekit.errors import DeviceError
from edgekit.plan.bench_acceptance import benched_chances
from edgekit.plan.break_even import USUAL_ACCEPTANCE, needed_acceptance
from edgekit.plan.estimate import Estimate
from edgekit.plan.step_cost import CYCLES_PER_LAYER, StepCost, with_band
from edgekit.runtime.drafting.expected import expected_tokens

#: Where a bundle's chances come from.
TRAINED = "measured on held-out text like that of the heads' training"
BENCHED = "the lower of held-out text like that of the heads' training and conversations of edgekit bench --draft"
#: Tokens where only their chance is told.
DEFAULT_TOKENS = 4
#: Layers as whose kernels those of a draft graph are counted: a trunk, a mixture, and one block for all positions.
DRAFT_LAYERS = 2


@dataclass(frozen=True)
class Drafts:
    """What proposes tokens.

    Attributes:
        chances: of each position to be accepted, given that those before it were; as many as tokens are proposed.
        graph_bytes: of the draft graph, read for each draft; None where nothing is known of what drafts, so that
            drafting itself counts nothing.
        basis: where the chances come from.
    """

    chances: tuple[float, ...]
    graph_bytes: int | None
    basis: str


@dataclass(frozen=True)
class DraftForecast:
    """One sequence, decoded with drafts, at the context that is planned for.

    Attributes:
        proposed: tokens of each draft.
        tokens_per_step: expected, the model's own included.
        verify_cost, draft_cost: in plain steps.
        speed_up: over plain decoding.
        needed_acceptance: chance of every position from which that block pays; None where none suffices.
        best: of the lengths up to `proposed`, the one that is fastest by these chances; 0 for plain decoding.
        tokens_per_s: with that length.
    """

    proposed: int
    tokens_per_step: float
    verify_cost: float
    draft_cost: float
    speed_up: float
    needed_acceptance: float | None
    best: int
    best_speed_up: float
    tokens_per_s: Estimate
    basis: str


def drafts_for(model: str, tokens: int | None, acceptance: float | None) -> Drafts | None:
    """What is asked for, or what the bundle `model` holds; None where neither says anything.

    Args:
        tokens, acceptance: as given; they outdo the bundle's.

    Raises:
        DeviceError: more tokens than the bundle's heads propose.
        BundleError: the bundle is damaged.
    """
    bundle = bundle_at(model)
    heads = None if bundle is None else bundle.manifest.draft
    if bundle is None or heads is None:
        if tokens is None and acceptance is None:
            return None
        chance, basis = _assumed(acceptance)
        return Drafts((chance,) * (tokens or DEFAULT_TOKENS), None, basis)
    return drafts_of(bundle, heads, tokens, acceptance)


def drafts_of(bundle: Bundle, heads: DraftInfo, tokens: int | None = None, acceptance: float | None = None) -> Drafts:
    """What a bundle's draft heads propose. Arguments and DeviceError: as `drafts_for`."""
    count = tokens or heads.tokens
    if count > heads.tokens:
        raise DeviceError(
            "a draft has at most as many tokens as the bundle's draft heads propose",
            f"--draft-tokens is {count}, {bundle.path} proposes {heads.tokens}",
            f"choose --draft-tokens {heads.tokens} or less",
        )
    measured = heads.acceptance.get("greedy")
    if acceptance is None and measured is not None:
        chances, basis = _lower(measured[:count], benched_chances(bundle, count))
    else:
        chance, basis = _assumed(acceptance)
        chances = (chance,) * count
    files = {entry.name: entry.bytes for entry in bundle.manifest.files}
    return Drafts(chances, sum(files[name] for name in (heads.file, *heads.data)), basis)


def forecast(cost: StepCost, drafts: Drafts, context: int) -> DraftForecast:
    """Compare steps that draft and verify with plain ones. `cost` is of the model without draft heads."""
    one, clock = cost.step(context), cost.machine.gpu_clock_hz
    plain, drafting = one.seconds, 0.0
    if drafts.graph_bytes is not None:
        drafting = one.weights_s * drafts.graph_bytes / one.weight_bytes
        drafting += CYCLES_PER_LAYER * DRAFT_LAYERS / clock if clock else 0.0
    more = (cost.step(context, positions=k + 1).seconds for k in range(1, len(drafts.chances) + 1))
    verifying, tokens = [plain, *more], expected_tokens(drafts.chances)
    speeds = [1.0] + [e * plain / (v + drafting) for e, v in zip(tokens[1:], verifying[1:], strict=True)]
    best = max(range(len(speeds)), key=lambda k: speeds[k])
    seconds = plain if best == 0 else (verifying[best] + drafting) / tokens[best]
    return DraftForecast(
        proposed=len(drafts.chances),
        tokens_per_step=tokens[-1],
        verify_cost=verifying[-1] / plain,
        draft_cost=drafting / plain,
        speed_up=speeds[-1],
        needed_acceptance=needed_acceptance((verifying[-1] + drafting) / plain, len(drafts.chances)),
        best=best,
        best_speed_up=speeds[best],
        tokens_per_s=with_band(seconds, f"step of {best + 1} positions; acceptance {drafts.basis}").inverse(),
        basis=drafts.basis,
    )


def _lower(trained: tuple[float, ...], benched: tuple[float | None, ...]) -> tuple[tuple[float, ...], str]:
    """What to plan with: conversations agree less with heads than text like that of their training."""
    if all(chance is None for chance in benched):
        return trained, TRAINED
    return tuple(min(a, a if b is None else b) for a, b in zip(trained, benched, strict=True)), BENCHED


def _assumed(acceptance: float | None) -> tuple[float, str]:
    if acceptance is not None:
        return acceptance, "as given"
    return USUAL_ACCEPTANCE, "usual of draft models"


def bundle_at(model: str) -> Bundle | None:
    """The bundle at that path; None where there is none. Raises BundleError for a damaged one."""
    path = Path(model).expanduser()
    return read_bundle(path) if (path / MANIFEST_NAME).is_file() else None
