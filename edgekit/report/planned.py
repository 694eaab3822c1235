"""What a plan foretold for a device beside what a device kit measured there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgekit.bundle import Bundle
from edgekit.errors import EdgekitError
from edgekit.plan.estimate import Estimate
from edgekit.report import speed
from edgekit.report.kit_result import KitResult
from edgekit.report.numbers import quantity
from edgekit.report.shape import misfit


@dataclass(frozen=True)
class Foretold:
    """One quantity: the plan's estimate, and the measurement."""

    name: str
    unit: str
    plan: Estimate
    measured: float

    @property
    def within(self) -> bool:
        """Whether the measurement lies in the plan's range."""
        return self.plan.low <= self.measured <= self.plan.high

    @property
    def ratio(self) -> float:
        """Measured over planned."""
        return self.measured / self.plan.value

    @property
    def range(self) -> str:
        """The plan's range with its unit."""
        return f"{quantity(self.plan.low, self.unit)} to {quantity(self.plan.high, self.unit)}"


def foretold(bundle: Bundle, kit: KitResult) -> list[Foretold]:
    """Everything that the planner foretells for the kit's device and that its result holds.

    Raises:
        DeviceError: the device has no profile, or not of this dtype.
        ModelError, CheckpointError: the planner does not know the bundle's architecture, or its config.json is damaged.
    """
    from edgekit.checkpoint.json_file import read_json_object
    from edgekit.device.profile import device_profile
    from edgekit.plan.model_sizes import model_sizes
    from edgekit.plan.options import options_for
    from edgekit.plan.plan import Plan, make_plan

    sizes = model_sizes(read_json_object(bundle.file("config.json")))
    device = device_profile(str(kit.kit["device"]))
    name, dtype = bundle.manifest.model.name, str(kit.kit["dtype"])

    def plan(context: int, prompt: int | None = None) -> Plan:
        return make_plan(name, sizes, device, options_for(sizes, dtype=dtype, context=context, prompt=prompt))

    def found() -> Iterator[Foretold]:
        bench = kit.bench
        if bench is not None and misfit(bench, speed.SHAPE) is None:
            for row in bench["decodes"]:
                label = f"decode, {row['depth']:,} in the cache"
                rate = plan(row["depth"] + row["tokens"]).speed.tokens_per_s
                yield Foretold(label, "tokens/s", rate, row["tokens_per_s"]["median"])
            for row in bench["prompts"]:
                first = plan(row["tokens"], row["tokens"]).speed.first_token_s
                if first is not None:
                    label = f"prompt of {row['tokens']:,}, first token"
                    yield Foretold(label, "s", first, row["ttft_s"]["median"])
        yield from _build(kit, plan(bundle.manifest.cache.capacity_limit).build)

    return list(found())


def _build(kit: KitResult, build: Any) -> Iterator[Foretold]:
    for label, field, unit, estimate in (
        ("build: time", "build_seconds", "s", build.seconds),
        ("build: peak memory", "build_peak_memory_bytes", "B", build.memory),
    ):
        measured = (kit.build or {}).get(field)
        if estimate is not None and isinstance(measured, (int, float)) and measured > 0:
            yield Foretold(label, unit, estimate, float(measured))


def reason(error: EdgekitError) -> str:
    """Why there is no plan, in a sentence."""
    return f"There is no plan to hold this against: {error.rule}; {error.fact}."
