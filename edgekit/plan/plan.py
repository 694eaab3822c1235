"""A plan: everything that is foretold about one model on one device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.device.profile import DeviceProfile
from edgekit.plan.break_even import BreakEven, CachePays, break_even, cache_pays
from edgekit.plan.build_cost import BuildCost, build_cost
from edgekit.plan.conversion import converted
from edgekit.plan.drafts import DraftForecast, forecast
from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import Machine, check_dtype, machine
from edgekit.plan.memory import RunMemory, run_memory
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.options import TPA, PlanOptions
from edgekit.plan.step_cost import Step, StepCost, with_band
from edgekit.plan.storage import read_bytes, weight_bytes
from edgekit.plan.verdict import DOES_NOT_FIT, verdict

_STEP_BASIS = "bytes, operations and launches of a step; band of TensorRT-Edge-LLM's published figures"


@dataclass(frozen=True)
class Speed:
    """How fast it can be.

    Attributes:
        step: one decoding step with a full cache.
        tokens_per_s: of all sequences together, with a full cache; at_start: with an empty one.
        first_token_s: from the prompt's arrival, in pieces of `max_input`; None where the device's peak is unknown.
        first_token_limit: the resource that takes longest in the prompt's first piece.
        tokens_per_joule: at the power mode's limit, which is more than what is drawn; None where there is no limit.
    """

    step: Step
    tokens_per_s: Estimate
    at_start: Estimate
    first_token_s: Estimate | None
    first_token_limit: str
    tokens_per_joule: Estimate | None


@dataclass(frozen=True)
class Plan:
    """One model on one device. `sizes` are those of the model as it runs, after a conversion."""

    model: str
    source: ModelSizes
    sizes: ModelSizes
    machine: Machine
    options: PlanOptions
    memory: RunMemory
    build: BuildCost
    speed: Speed
    break_even: BreakEven
    drafting: DraftForecast | None
    cache_pays: CachePays

    @property
    def run_verdict(self) -> str:
        """Of running."""
        return verdict(self.memory.total, self.memory.available)

    @property
    def build_verdict(self) -> str | None:
        """Of building on the device; None where it need not be built there."""
        return verdict(self.build.memory, self.build.available) if self.build.on_device else None

    @property
    def fits(self) -> bool:
        """Whether it is expected to run. (A build that does not fit has other remedies.)"""
        return self.run_verdict != DOES_NOT_FIT


def make_plan(
    model: str, sizes: ModelSizes, device: DeviceProfile, options: PlanOptions, power_mode: str | None = None
) -> Plan:
    """Evaluate a model on a device.

    Raises:
        DeviceError: the device lacks the type or the power mode.
        ModelError: the model cannot be converted as asked.
    """
    check_dtype(device, options.dtype)
    on = machine(device, power_mode)
    running = converted(sizes, options.cache_ratio) if options.attention == TPA else sizes
    cost = StepCost(running, on, options.dtype, options.of_plain_steps)
    weights = weight_bytes(running, options.dtype, options.context, options.compression)
    # Draft heads are built as one more layer.
    layers = running.layers + (options.compression.draft_head_bytes > 0)
    return Plan(
        model=model,
        source=sizes,
        sizes=running,
        machine=on,
        options=options,
        memory=run_memory(running, on, options),
        build=build_cost(device, device.backend, layers, weights),
        speed=_speed(running, on, options, cost),
        break_even=break_even(cost, options.context, options.batch),
        drafting=None if options.drafts is None else forecast(cost, options.drafts, options.context),
        cache_pays=cache_pays(cost, options.batch),
    )


def changed(plan: Plan, **changes: object) -> Plan:
    """The same plan with other options."""
    options = replace(plan.options, **changes)  # type: ignore[arg-type]
    return make_plan(plan.model, plan.source, plan.machine.device, options, plan.machine.mode.name)


def _speed(sizes: ModelSizes, on: Machine, options: PlanOptions, cost: StepCost) -> Speed:
    read = read_bytes(sizes, options.dtype, options.of_plain_steps)
    full, empty = (cost.step(context, options.batch) for context in (options.context, 1))
    rates = [with_band(step.seconds, _STEP_BASIS, read).inverse().scaled(options.batch) for step in (full, empty)]
    prompt = cost.prompt_seconds(options.prompt, options.max_input, options.batch)
    piece = min(options.prompt, options.max_input)
    first = None if prompt is None else with_band(prompt, _STEP_BASIS)
    joule = None
    if on.mode.watts:
        joule = rates[0].scaled(1 / on.mode.watts, f"at the mode's limit of {on.mode.watts:g} W")
    limit = cost.step(piece, options.batch, piece, logits=1).limit
    return Speed(full, rates[0], rates[1], first, limit, joule)
