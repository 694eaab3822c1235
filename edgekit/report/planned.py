"""What a plan foretold, beside what a device kit measured on a device or TensorRT said of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgekit.bundle import Bundle, EngineEntry
from edgekit.checkpoint.json_file import read_json_object
from edgekit.device.profile import device_profile
from edgekit.errors import EdgekitError
from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import released
from edgekit.plan.memory import ACTIVATIONS, WEIGHTS
from edgekit.plan.model_sizes import model_sizes
from edgekit.plan.options import options_for
from edgekit.plan.plan import Plan, make_plan
from edgekit.report import speed
from edgekit.report.kit_result import KitResult
from edgekit.report.numbers import quantity
from edgekit.report.shape import misfit

#: Half of the last of three digits, at its least.
_SHOWN = 0.0005


@dataclass(frozen=True)
class Foretold:
    """One quantity: the plan's estimate, and the measurement."""

    name: str
    unit: str
    plan: Estimate
    measured: float

    @property
    def within(self) -> bool:
        """Whether the measurement lies in the plan's range, to the digits that are shown."""
        return self.plan.low * (1 - _SHOWN) <= self.measured <= self.plan.high * (1 + _SHOWN)

    @property
    def ratio(self) -> float:
        """Measured over planned."""
        return self.measured / self.plan.value

    @property
    def range(self) -> str:
        """The plan's range with its unit."""
        return f"{quantity(self.plan.low, self.unit)} to {quantity(self.plan.high, self.unit)}"


def of_kit(bundle: Bundle, kit: KitResult) -> list[Foretold]:
    """Everything that the planner foretells for the kit's device and that its result holds.

    Raises:
        DeviceError: the device has no profile, or not of this dtype.
        ModelError, CheckpointError: the planner does not know the bundle's architecture, or its config.json is damaged.
    """
    plan = _planner(bundle, str(kit.kit["device"]), str(kit.kit["dtype"]), kit.kit.get("software"))
    timed = kit.benchmark is not None and misfit(kit.benchmark, speed.TIMED) is None
    found = list(_speed(kit.benchmark, plan)) if kit.benchmark is not None and timed else []
    build = plan(context=bundle.manifest.cache.capacity_limit).build
    engine = (kit.build or {}).get("engine", {})
    taken = {name: engine.get(name) for name in ("build_seconds", "build_peak_memory_bytes")}
    numbers = {name: value for name, value in taken.items() if isinstance(value, (int, float))}
    found += _paired("build: time", "s", build.seconds, numbers.get("build_seconds"))
    return found + _paired("build: peak memory", "B", build.memory, numbers.get("build_peak_memory_bytes"))


def of_engine(bundle: Bundle, engine: EngineEntry) -> list[Foretold]:
    """Memory and build that the planner foretells for an engine with these limits, and what TensorRT said of it.

    Raises: as `of_kit`.
    """
    plan = _planner(bundle, engine.device, engine.dtype)(
        context=engine.max_kv_cache_capacity, batch=engine.max_batch_size, max_input=engine.max_input_len
    )
    return [
        *_paired("weights", "B", plan.memory.of(WEIGHTS), engine.weights_bytes),
        *_paired("activations", "B", plan.memory.of(ACTIVATIONS), engine.activation_bytes),
        *_paired("build: peak memory", "B", plan.build.memory, engine.build_peak_memory_bytes),
        *_paired("build: time", "s", plan.build.seconds, engine.build_seconds),
    ]


def _planner(bundle: Bundle, device: str, dtype: str, software: str | None = None) -> Callable[..., Plan]:
    """Makes plans of a bundle on a device; the options are those of `options_for`.

    Args:
        software: the release that runs there ("JetPack 6.2"), where that is known.
    """
    sizes = model_sizes(read_json_object(bundle.file("config.json")))
    profile, name = device_profile(device), bundle.manifest.model.name
    release = next((each for each in profile.software if each.name == software), None)
    if release is not None:
        profile = released(profile, release)
    return lambda **options: make_plan(name, sizes, profile, options_for(sizes, dtype=dtype, **options))


def _speed(bench: dict[str, Any], plan: Callable[..., Plan]) -> Iterator[Foretold]:
    for row in bench["decodes"]:
        rate = plan(context=row["depth"] + row["tokens"]).speed.tokens_per_s
        label = f"decode, {row['depth']:,} in the cache"
        yield from _paired(label, "tokens/s", rate, row["tokens_per_s"]["median"])
    for row in bench["prompts"]:
        first = plan(context=row["tokens"], prompt=row["tokens"]).speed.first_token_s
        yield from _paired(f"prompt of {row['tokens']:,}, first token", "s", first, row["ttft_s"]["median"])


def _paired(name: str, unit: str, plan: Estimate | None, measured: float | None) -> list[Foretold]:
    """The quantity, where both are known."""
    return [] if plan is None or not measured else [Foretold(name, unit, plan, float(measured))]


def reason(error: EdgekitError) -> str:
    """Why there is no plan, in a sentence."""
    return f"There is no plan to hold this against: {error.rule}; {error.fact}."
