"""What device kits brought back: what was built, proved and measured on devices themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.report import speed
from edgekit.report.blocks import Block, Cell, Facts, Heading, Note, Section, State, Table, Text, Tile
from edgekit.report.kit_result import PARTS, KitResult
from edgekit.report.numbers import percent, plain, quantity
from edgekit.report.shape import NUMBER, misfit
from edgekit.report.source import Source

ORDER = 80
TITLE = "On devices"
INTRO = "Result files of device kits, as the devices wrote them. The figures are theirs, not this machine's."
#: What `edgekit.kit.parity` writes.
PARITY_SHAPE = {
    "passed": bool,
    "made_by": str,
    "activations": str,
    "top1": float,
    "greedy_prefix": [int],
    "tokens": [int],
    "failure": (str, None),
}
#: What `edgekit.kit.plan` puts into a kit.
_ESTIMATE = {"value": float, "low": float, "high": float}
PLAN_SHAPE = {
    "verdict": {"run": str, "build": (str, None)},
    "memory": {"total": _ESTIMATE, "available": float},
    "build": {"memory": _ESTIMATE},
    "speed": {"tokens_per_s": _ESTIMATE, "limit": str},
}
_STAGE = {"cosine": NUMBER, "max_abs_error": NUMBER, "relative_error": NUMBER}
_LONGEST = 300


def section(source: Source) -> Section | None:
    """One part for each result; nothing where none is given."""
    if not source.kits:
        return None
    blocks: list[Block] = []
    failed = False
    for kit in source.kits:
        device = str(kit.kit["device"])
        blocks += [Heading(device), *_other_bundle(kit, source), _origin(kit), *_plan(kit.kit.get("plan"))]
        if kit.failure is not None:
            why = " ".join(kit.failure[field] + "." for field in ("rule", "fact", "next_step") if kit.failure[field])
            blocks.append(Note(f"It ended at {kit.failure['stage']}: {why}", "bad"))
        elif not kit.passed:
            blocks.append(Note("Its run did not come to its end, and the result does not say why.", "bad"))
        for part, show in (("machine", _generic), ("build", _build), ("parity", _parity), ("benchmark", _bench)):
            found = getattr(kit, part)
            if found is None:
                blocks.append(Note(f"The run on {device} has no {part}: it did not get so far.", "warn"))
            else:
                blocks += show(part, found)
        failed = failed or not _good(kit)
    state: State = "failed" if failed else "ok"
    tiles = tuple(_tile(kit) for kit in source.kits)
    data = [{"file": str(kit.file), **kit.document} for kit in source.kits]
    return Section("kits", TITLE, tuple(blocks), INTRO, state, tiles, data)


def _good(kit: KitResult) -> bool:
    """Whether all went well: a result that says so, and holds nothing that says otherwise."""
    proven = kit.parity is None or kit.parity.get("passed") is True
    return kit.passed and kit.failure is None and proven


def _tile(kit: KitResult) -> Tile:
    device = str(kit.kit["device"])
    if kit.parity is None:
        return Tile(device, "not proven", "no parity in its result", "warn")
    passed = _good(kit)
    done = ", ".join(part for part in PARTS if getattr(kit, part) is not None)
    return Tile(device, "passed" if passed else "failed", f"on the device: {done}", "good" if passed else "bad")


def _other_bundle(kit: KitResult, source: Source) -> list[Block]:
    manifest = source.bundle.manifest
    own = {"model": manifest.model.name, "dtype": manifest.dtype, "form": manifest.form}
    differing = [
        f"its {name} is {kit.kit[name]}, here {value}" for name, value in own.items() if kit.kit[name] != value
    ]
    if not differing:
        return []
    return [Note(f"This result is of another bundle: {'; '.join(differing)}.", "warn")]


def _origin(kit: KitResult) -> Facts:
    named = [name for name, value in kit.kit.items() if isinstance(value, (str, int)) and value != ""]
    rows = [("result file", Cell(kit.file.name, code=True)), *_rows({name: kit.kit[name] for name in named})]
    return Facts(tuple(rows))


def _plan(found: Any) -> list[Block]:
    """What was planned when the kit was made; kits of older versions carry none."""
    if misfit(found, PLAN_SHAPE) is not None:
        return [Note("The kit carries no plan.")] if found is None else _generic("plan", {"plan": found})
    memory, build, speed = found["memory"], found["build"]["memory"], found["speed"]
    rows: list[tuple[str, Text]] = [
        ("plan: running", f"{found['verdict']['run']} in {quantity(memory['available'], 'B')}"),
        ("plan: memory to run", _range(memory["total"], "B")),
        ("plan: building there", found["verdict"]["build"] or "not needed"),
        ("plan: memory to build", _range(build, "B")),
        ("plan: decoding, cache full", f"{_range(speed['tokens_per_s'], 'tokens/s')}, limited by {speed['limit']}"),
    ]
    return [Facts(tuple(rows))]


def _range(estimate: dict[str, float], unit: str) -> str:
    value, low, high = (quantity(estimate[name], unit) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _parity(part: str, found: dict[str, Any]) -> list[Block]:
    if misfit(found, PARITY_SHAPE) is not None:
        return _generic(part, found)
    text = "The engine says what the golden texts say." if found["passed"] else f"Failed: {found['failure']}"
    alike = ", ".join(f"{own} of {whole}" for own, whole in zip(found["greedy_prefix"], found["tokens"], strict=False))
    rows: list[tuple[str, Text]] = [
        ("golden texts from", found["made_by"]),
        ("tolerance of", f"{found['activations']} activations"),
        ("same most likely token", percent(found["top1"], 4)),
        ("greedy tokens in common", alike),
    ]
    blocks: list[Block] = [Note(text, "good" if found["passed"] else "bad"), Facts(tuple(rows))]
    stages = found.get("stages")
    if isinstance(stages, dict) and all(misfit(stage, _STAGE) is None for stage in stages.values()):
        cells: tuple[tuple[Text, ...], ...] = tuple(
            (str(mode), *(_number(stage[measure]) for measure in _STAGE)) for mode, stage in stages.items()
        )
        head = ("logits", "cosine", "max error", "relative error")
        blocks.append(Table("Each way to run the engine, at its worst", head, cells, (1, 2, 3)))
    return blocks


def _build(part: str, found: dict[str, Any]) -> list[Block]:
    engine = found.get("engine")
    if not isinstance(engine, dict):
        return _generic(part, found)
    shown = {name: value for name, value in engine.items() if isinstance(value, (str, int, float))}
    return _generic(part, {"from": found.get("from"), **shown})


def _bench(part: str, found: dict[str, Any]) -> list[Block]:
    if misfit(found, speed.TIMED) is not None:
        return _generic(part, found)
    rest = {name: value for name, value in found.items() if name not in speed.TIMED and name != "telemetry"}
    telemetry = found.get("telemetry")
    read = telemetry if isinstance(telemetry, dict) else {}
    energy = [Facts(tuple(rows))] if (rows := speed.energy_rows(found)) else []
    shown = [*energy, *_generic(part, rest), *_generic("telemetry", read)]
    return [*speed.figures(found), speed.summary_table(found), *shown]


def _generic(part: str, found: dict[str, Any]) -> list[Block]:
    """Whatever a part holds that is not known here, as it is."""
    rows = _rows(found)
    return [Facts(tuple((f"{part}: {label}", value) for label, value in rows))] if rows else []


def _rows(found: Mapping[str, Any]) -> list[tuple[str, Text]]:
    return [(str(name).replace("_", " "), _shown(str(name), value)) for name, value in found.items()]


def _shown(name: str, value: Any) -> Text:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)
        return f"{value:,}" if unit is None else quantity(value, unit)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


_UNITS = {"_bytes_per_s": "B/s", "_bytes": "B", "_seconds": "s", "_s": "s"}


def _number(value: float | None) -> str:
    return "not finite" if value is None else plain(value, 7 if 0.9 < value <= 1 else 3)
