"""Changes that make a plan fit, each tried before it is suggested."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.device.profile import device_names, device_profile
from edgekit.errors import EdgekitError
from edgekit.plan.conversion import is_convertible
from edgekit.plan.limits import largest_context
from edgekit.plan.memory import WEIGHTS
from edgekit.plan.options import OWN, TPA
from edgekit.plan.plan import Plan, changed, make_plan
from edgekit.plan.storage import DTYPES
from edgekit.plan.verdict import DOES_NOT_FIT

RATIOS = (0.75, 0.5, 0.25)
#: A shorter context than this is no chat.
USEFUL_CONTEXT = 256


@dataclass(frozen=True)
class Suggestion:
    """One change and the plan that it leads to.

    Attributes:
        change: in words; command: what makes or checks it, None where edgekit has no command for it yet.
        plan: the evaluated plan, which fits.
        speed_is_known: whether the plan's speeds hold; not where weights cross a bus whose speed is not in the profile.
    """

    change: str
    command: str | None
    plan: Plan
    speed_is_known: bool = True


def run_suggestions(plan: Plan) -> list[Suggestion]:
    """Changes after which running fits, the least intrusive first; empty if it fits already."""
    if plan.fits:
        return []
    return [suggestion for suggestion in _candidates(plan) if suggestion.plan.fits]


def build_suggestions(plan: Plan) -> list[str]:
    """What to do where the device has too little memory for the build, in words."""
    if plan.build_verdict != DOES_NOT_FIT:
        return []
    missing = plan.build.memory.value - plan.build.available
    lines = []
    if missing <= plan.build.available:
        lines.append(f"add {missing / 1e9:,.1f} GB of swap for the build")
    for dtype in _smaller_types(plan):
        other = _try(plan, dtype=dtype)
        if other is not None and other.fits and other.build_verdict != DOES_NOT_FIT:
            lines.append(f"build with {dtype} weights: {other.build.memory.value / 1e9:,.1f} GB")
            break
    return lines or ["build on a larger device: TensorRT builds for the GPU that it runs on"]


def _candidates(plan: Plan) -> Iterator[Suggestion]:
    yield from _other_types(plan)
    yield from _shorter_context(plan)
    yield from _smaller_batch(plan)
    yield from _smaller_cache(plan)
    yield from _both(plan)
    yield from _streaming(plan)
    yield from _other_devices(plan)


def _other_types(plan: Plan) -> Iterator[Suggestion]:
    for dtype in _smaller_types(plan):
        other = _try(plan, dtype=dtype)
        if other is not None:
            yield Suggestion(f"{dtype} weights", _export(other), other)


def _shorter_context(plan: Plan) -> Iterator[Suggestion]:
    context = largest_context(plan)
    if context is not None and USEFUL_CONTEXT <= context < plan.options.context:
        other = _with_context(plan, context)
        yield Suggestion(f"a context of {context:,} tokens", _export(other), other)


def _smaller_batch(plan: Plan) -> Iterator[Suggestion]:
    for batch in range(plan.options.batch - 1, 0, -1):
        other = changed(plan, batch=batch)
        if other.fits:
            yield Suggestion(f"{batch} sequence{'s' if batch > 1 else ''} at once", None, other)
            return


def _smaller_cache(plan: Plan) -> Iterator[Suggestion]:
    if plan.options.attention != OWN or not is_convertible(plan.source):
        return
    for ratio in RATIOS:
        other = _try(plan, attention=TPA, cache_ratio=ratio)
        if other is not None and other.fits:
            command = f"edgekit convert {plan.model} -o SMALLER --attention tpa --cache-ratio {ratio:g}"
            yield Suggestion(f"{ratio:.0%} of the cache, by converting the attention", command, other)
            return


def _both(plan: Plan) -> Iterator[Suggestion]:
    """A smaller type and a shorter context, where neither is enough."""
    for dtype in _smaller_types(plan):
        smaller = _try(plan, dtype=dtype)
        if smaller is None or smaller.fits:
            continue
        context = largest_context(smaller)
        if context is not None and context >= USEFUL_CONTEXT:
            other = _with_context(smaller, context)
            yield Suggestion(f"{dtype} weights and a context of {context:,} tokens", _export(other), other)


def _streaming(plan: Plan) -> Iterator[Suggestion]:
    """Weights in the host's memory: pointless where the GPU has no memory of its own."""
    if plan.machine.device.memory_is_shared:
        return
    weights = plan.memory.of(WEIGHTS).value
    rest = plan.memory.total.value - weights
    resident = int(plan.memory.available - rest)
    if 0 < resident < weights:
        other = changed(plan, resident_weight_bytes=resident)
        moved = (weights - resident) / 1e9
        yield Suggestion(
            f"weight streaming: {moved:,.1f} GB of the weights stay in the host's memory and cross the bus at each "
            "step, which is much slower",
            None,
            other,
            speed_is_known=False,
        )


def _other_devices(plan: Plan) -> Iterator[Suggestion]:
    """The smallest known device of the same kind that it fits on as it is."""
    device = plan.machine.device
    others = (device_profile(name) for name in device_names() if name != device.name)
    for other in sorted((o for o in others if o.kind == device.kind), key=lambda o: o.memory_bytes):
        try:
            elsewhere = make_plan(plan.model, plan.source, other, plan.options)
        except EdgekitError:
            continue
        if elsewhere.fits:
            command = f"edgekit plan {plan.model} --device {other.name} --dtype {plan.options.dtype}"
            yield Suggestion(f"a larger device: {other.title}", command, elsewhere)
            return


def _smaller_types(plan: Plan) -> list[str]:
    """Types with smaller weights that the device supports, the largest first."""
    later = DTYPES[DTYPES.index(plan.options.dtype) + 1 :]
    return [dtype for dtype in later if dtype in plan.machine.device.dtypes]


def _with_context(plan: Plan, context: int) -> Plan:
    options = plan.options
    return changed(
        plan, context=context, max_input=min(options.max_input, context), prompt=min(options.prompt, context)
    )


def _try(plan: Plan, **changes: object) -> Plan | None:
    try:
        return changed(plan, **changes)
    except EdgekitError:
        return None


def _export(plan: Plan) -> str:
    options = plan.options
    # A configuration can be planned, but not exported: that takes the weights it belongs to.
    model = "CHECKPOINT" if plan.model.endswith(".json") else plan.model
    return (
        f"edgekit export {model} -o BUNDLE --form {plan.machine.form} --dtype {options.dtype} "
        f"--max-context {options.context}"
    )
