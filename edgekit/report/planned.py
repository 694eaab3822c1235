"""What a plan foretold, beside what a device kit measured on a device or TensorRT said of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgekit.bundle import Bundle, EngineEntry
from edgekit.checkpoint.json_file import read_json_object
from edgekit.device.profile import device_profile
from edgekit.errors import EdgekitError
from edgekit.plan.estimate import Estimate
from edgekit.plan.machine import released
from edgekit.plan.memory import ACTIVATIONS, WEIGHTS
from edgekit.plan.model_sizes import model_sizes
from edgekit.plan.of_bundle import options_of_bundle
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
    engine = (kit.build or {}).get("engine", {})
    bundle = _as_built(bundle, engine.get("draft"))
    plan = _planner(bundle, str(kit.kit["device"]), str(kit.kit["dtype"]), kit.kit.get("software"))
    timed = kit.benchmark is not None and misfit(kit.benchmark, speed.TIMED) is None
    found = list(_speed(kit.benchmark, plan)) if kit.benchmark is not None and timed else []
    build = plan(context=bundle.manifest.cache.capacity_limit).build
    taken = _with_draft(engine)
    found += _paired("build: time", "s", build.seconds, taken["build_seconds"])
    return found + _paired("build: peak memory", "B", build.memory, taken["build_peak_memory_bytes"])


def of_engine(bundle: Bundle, engine: EngineEntry) -> list[Foretold]:
    """Memory and build that the planner foretells for an engine with these limits, and what TensorRT said of it.

    Raises: as `of_kit`.
    """
    built = _with_draft(asdict(engine))
    plan = _planner(_as_built(bundle, engine.draft), engine.device, engine.dtype)(
        context=engine.max_kv_cache_capacity, batch=engine.max_batch_size, max_input=engine.max_input_len
    )
    return [
        *_paired("weights", "B", plan.memory.of(WEIGHTS), built["weights_bytes"]),
        *_paired("activations", "B", plan.memory.of(ACTIVATIONS), engine.activation_bytes),
        *_paired("build: peak memory", "B", plan.build.memory, built["build_peak_memory_bytes"]),
        *_paired("build: time", "s", plan.build.seconds, built["build_seconds"]),
    ]


def _as_built(bundle: Bundle, draft: object) -> Bundle:
    """The bundle, without its draft heads where there is no engine of them."""
    return bundle if draft is not None else replace(bundle, manifest=replace(bundle.manifest, draft=None))


#: Of a decoder's engine and that of its draft heads together. They are built one after the other, each in a process.
_TOGETHER: dict[str, Callable[[list[float]], float]] = {
    "weights_bytes": sum,
    "build_seconds": sum,
    "build_peak_memory_bytes": max,
}


def _with_draft(engine: Mapping[str, Any]) -> dict[str, float | None]:
    """What both engines of an entry took; None where one of them does not say."""
    parts = [engine] + ([engine["draft"]] if isinstance(engine.get("draft"), dict) else [])
    found: dict[str, float | None] = {}
    for name, together in _TOGETHER.items():
        numbers = [part[name] for part in parts if isinstance(part.get(name), (int, float))]
        found[name] = together(numbers) if len(numbers) == len(parts) else None
    return found


def _planner(bundle: Bundle, device: str, dtype: str, software: str | None = None) -> Callable[..., Plan]:
    """Makes plans of a bundle on a device; the options are those of `options_of_bundle`.

    Args:
        software: the release that runs there ("JetPack 6.2"), where that is known.
    """
    sizes = model_sizes(read_json_object(bundle.file("config.json")))
    profile, name = device_profile(device), bundle.manifest.model.name
    release = next((each for each in profile.software if each.name == software), None)
    if release is not None:
        profile = released(profile, release)
    return lambda **options: make_plan(name, sizes, profile, options_of_bundle(bundle, sizes, dtype=dtype, **options))


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
