"""What is done with each matrix, as a file that can be read, edited and applied.

JSON with a line for each matrix: {"matrix": its weight, "method": of `edgekit.compress.saten.methods`, "bytes": the
most it may take}, and any of SETTINGS for that matrix alone; "settings" holds those of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.compress.saten.request import Settings, method_named
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.storage import check_dtype
from edgekit.errors import EdgekitError, ExportError

VERSION = 1
#: What a plan may set, and of which type.
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "sparsity": str,
    "order": int,
    "factors": str,
    "values": str,
    "block": int,
    "rounds": int,
    "base_bits": list,
    "base_blocks": list,
    "symmetric": bool,
}

#: What a line says of times.
EXPECTED_TIMES = ("expected_us", "int4_us")

#: Passages of the calibration text, and tokens of each.
LEAST = {"sequences": 2, "length": 8}


@dataclass(frozen=True)
class Entry:
    """One matrix: what may be stored at most in bytes, and settings beside the plan's own.

    Attributes:
        microseconds: of one token's product with it and with plain codes of 4 bits, by the cost model; for people.
    """

    matrix: str
    method: str
    nbytes: int
    settings: Mapping[str, Any]
    expected_loss: float | None = None
    microseconds: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """A line of the file."""
        line = {"matrix": self.matrix, "method": self.method, "bytes": self.nbytes, **self.settings}
        if self.expected_loss is not None:
            line["expected_loss"] = self.expected_loss
        if self.microseconds is not None:
            line |= dict(zip(EXPECTED_TIMES, self.microseconds, strict=True))
        return line


@dataclass(frozen=True)
class Plan:
    """All matrices.

    Attributes:
        settings: of all, by the names of SETTINGS.
        entries: in the order of the layers.
        calibration: "sequences" and "length".
        about: anything worth knowing, for people.
    """

    settings: Mapping[str, Any]
    entries: tuple[Entry, ...]
    calibration: Mapping[str, int]
    about: Mapping[str, Any]

    def settings_of(self, entry: Entry) -> Settings:
        """The settings of a matrix. ExportError for a value that makes no sense."""
        return settings_from({**self.settings, **entry.settings})

    @property
    def nbytes(self) -> int:
        """Of all matrices at most."""
        return sum(entry.nbytes for entry in self.entries)

    def text(self) -> str:
        """The file."""
        head = {"version": VERSION, "calibration": self.calibration, "settings": self.settings, "about": self.about}
        lines = [f'  "{key}": {json.dumps(value)},' for key, value in head.items()]
        entries = ",\n".join(f"    {json.dumps(entry.to_dict())}" for entry in self.entries)
        return "\n".join(["{", *lines, f'  "matrices": [\n{entries}\n  ]', "}", ""])


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Settings by the names of SETTINGS.

    Raises:
        ExportError: an unknown name, a value of another type, or one that makes no sense.
    """
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in SETTINGS:
            raise ExportError(
                f"a plan sets {', '.join(SETTINGS)}", f"it sets {name!r}", "take it out, or correct its spelling"
            )
        if value is None:
            continue
        if not isinstance(value, SETTINGS[name]) or isinstance(value, bool) != (SETTINGS[name] is bool):
            raise ExportError(f"{name} of a plan is of another type", f"it is {value!r}", "correct it")
        changes[name] = value
    if "sparsity" in changes:
        changes["sparsity"] = sparsity_named(changes["sparsity"])
    for name in ("factors", "values"):
        if name in changes:
            check_dtype(changes[name])
    for name, valid in (("base_bits", (2, 3, 4, 8)), ("base_blocks", (16, 32, 64, 128, 192, 256, 384))):
        if name in changes:
            changes[name] = tuple(changes[name])
            if not changes[name] or not set(changes[name]) <= set(valid):
                raise ExportError(
                    f"{name} are of {', '.join(map(str, valid))}", f"{list(changes[name])} was given", "choose of these"
                )
    for name in ("rounds", "block"):
        if changes.get(name, 1) < 1:
            raise ExportError(f"{name} is at least 1", f"it is {changes[name]}", "give a larger one")
    return replace(Settings(), **changes)


def plan_from_file(path: Path, matrices: Mapping[str, tuple[int, int]]) -> Plan:
    """Read a plan and hold it to the model's matrices, weight -> [N, K].

    Raises:
        ExportError: no plan, another version, or a line that says something impossible.
    """
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")), matrices)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fact = f"{path}: {type(error).__name__}: {error}"
        raise ExportError(_RULE, fact, "write one with --plan-only, and edit that") from None
    except EdgekitError as error:
        raise ExportError(error.rule, f"{path}: {error.fact}", error.next_step) from None


_RULE = f'a plan (version {VERSION}) has "calibration", "settings" and "matrices", a line for each matrix'


def _checked(found: Any, matrices: Mapping[str, tuple[int, int]]) -> Plan:
    if found["version"] != VERSION:
        raise ExportError(_RULE, f"its version is {found['version']!r}", "write a new one with --plan-only")
    entries = []
    for line in found["matrices"]:
        rest = dict(line)
        name, method, nbytes = rest.pop("matrix"), rest.pop("method"), rest.pop("bytes")
        loss, times = rest.pop("expected_loss", None), tuple(rest.pop(key, None) for key in EXPECTED_TIMES)
        if name not in matrices:
            raise ExportError("a plan names matrices of the model's layers", f"{name!r} is none", "correct its name")
        if not isinstance(nbytes, int) or nbytes < 1:
            raise ExportError("a matrix takes a whole number of bytes", f"{name} has {nbytes!r}", "correct it")
        method_named(method)
        entries.append(Entry(name, method, nbytes, rest, loss, None if None in times else times))
    if len({entry.matrix for entry in entries}) != len(entries) or not entries:
        raise ExportError("a plan names each matrix once", "one is there twice, or there is none", "correct it")
    calibration = {key: int(found["calibration"][key]) for key in LEAST}
    for key, least in LEAST.items():
        if calibration[key] < least:
            raise ExportError(f"{key} of a plan's calibration are {least} at least", f"{calibration[key]}", "give more")
    order = {name: place for place, name in enumerate(matrices)}
    entries.sort(key=lambda entry: order[entry.matrix])
    plan = Plan(found["settings"], tuple(entries), calibration, found.get("about", {}))
    for entry in plan.entries:
        plan.settings_of(entry)
    return plan
