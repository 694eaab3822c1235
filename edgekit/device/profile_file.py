"""Strict reading of `devices/<name>.toml`: every fact has its type, its unit's range and a source, or is refused."""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from edgekit.device.profile import BACKENDS, CPU_ARCHITECTURES, DTYPES, KINDS, PEAKS, DeviceProfile
from edgekit.errors import DeviceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = 1
#: What the file says of itself: no fact of the device, so no source.
_WITHOUT_SOURCE = ("title", "kind", "sources")
_CHOICES = {
    "kind": KINDS,
    "backends": BACKENDS,
    "backend": BACKENDS,
    "dtypes": DTYPES,
    "peak_ops_per_s": PEAKS,
    "cpu_architecture": CPU_ARCHITECTURES,
}
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_Table = TypeVar("_Table")


def profile_from_file(path: Path) -> DeviceProfile:
    """The profile in a file. Raises DeviceError naming the file and the field."""
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise DeviceError(
            "a device's profile is a TOML file", f"{path}: {error.strerror}", "give a file such as devices/l4.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeviceError("a device's profile must be valid TOML", f"{path}: {error}", "correct the file") from error
    try:
        return profile_from(document, path.stem)
    except DeviceError as error:
        raise DeviceError(error.rule, f"{path}: {error.fact}", error.next_step) from error


def profile_from(document: dict[str, Any], name: str) -> DeviceProfile:
    """A parsed TOML document as the profile of that name. Raises DeviceError naming the field."""
    schema = document.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise DeviceError(
            f"this edgekit reads device profiles of schema {SCHEMA}",
            "schema is missing" if schema is None else f"schema is {schema!r}",
            f"write schema = {SCHEMA} on the first line",
        )
    facts = {key: value for key, value in document.items() if key != "schema"}
    profile = _table(DeviceProfile, facts, "", given={"name": name})
    _check_sources(facts)
    _check_agreement(profile)
    return profile


def _table(kind: type[_Table], document: dict[str, Any], where: str, given: dict[str, Any] | None = None) -> _Table:
    """A TOML table as the dataclass `kind`; `given` are fields that the file does not hold."""
    values: dict[str, Any] = dict(given or {})
    known = {item.name: item for item in fields(kind) if item.name not in values}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for key in document:
        if key not in known:
            near = get_close_matches(key, known, n=2, cutoff=0.5)
            raise DeviceError(
                "a device's profile may hold only fields that edgekit knows",
                f"it holds {where}{key}",
                f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}",
            )
    for key, item in known.items():
        if key in document:
            values[key] = _value(document[key], hints[key], f"{where}{key}", _CHOICES.get(key, ()))
        elif item.default is MISSING:
            raise DeviceError(
                f"a device's profile must have {where}{key}", "it is missing", "devices/README.md explains it"
            )
    return kind(**values)


def _value(value: object, hint: Any, where: str, choices: tuple[str, ...]) -> Any:
    """`value` if it is what the annotation says."""
    alternatives = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is dict:
        return _dictionary(value, alternatives[1], where, choices)
    if get_origin(hint) is tuple:
        return _list(value, alternatives[0], where, choices)
    kind = alternatives[0] if alternatives else hint
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # bool is a subclass of int, and 1.0 is no whole number in TOML
        raise _wrong(where, _WORDS[kind], value)
    if isinstance(value, str):
        if not value.strip():
            raise _wrong(where, "a text that is not empty", value)
        _check_choice(value, where, choices)
    elif not isinstance(value, bool) and not (isinstance(value, int | float) and 0 < value < math.inf):
        raise _wrong(where, "a positive number", value)
    return value


def _dictionary(value: object, kind: Any, where: str, choices: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise _wrong(where, "a table that is not empty", value)
    for key in value:
        _check_choice(key, where, choices)
    return {key: _value(entry, kind, f"{where}.{key}", ()) for key, entry in value.items()}


def _list(value: object, kind: type[Any], where: str, choices: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong(where, "a list that is not empty", value)
    entries: list[Any]
    if is_dataclass(kind):
        entries = []
        for number, entry in enumerate(value, start=1):
            if not isinstance(entry, dict):
                raise _wrong(f"{where} {number}", "a table", entry)
            entries.append(_table(kind, entry, f"{where} {number}: "))
    else:
        entries = [_value(entry, kind, f"{where} {number}", choices) for number, entry in enumerate(value, start=1)]
    key = [getattr(entry, "name", entry) for entry in entries]
    if len(set(key)) != len(key):
        raise _wrong(where, "a list without repetitions", key)
    return tuple(entries)


def _check_choice(value: str, where: str, choices: tuple[str, ...]) -> None:
    if choices and value not in choices:
        near = get_close_matches(value, choices, n=1, cutoff=0.5)
        raise _wrong(where, f"of {', '.join(choices)}", value, f"did you mean {near[0]!r}?" if near else "")


def _check_sources(facts: dict[str, Any]) -> None:
    """Each fact has a source, and each source a fact."""
    stated = [key for key in facts if key not in _WITHOUT_SOURCE]
    for key in stated:
        if key not in facts["sources"]:
            raise DeviceError(
                f"each fact must have a source: sources.{key}", "it is missing", "say where the fact was read"
            )
    for key in facts["sources"]:
        if key not in stated:
            near = get_close_matches(key, stated, n=1, cutoff=0.5)
            raise DeviceError(
                "a source must be that of a field of the file",
                f"sources.{key} is not",
                f"did you mean {near[0]}?" if near else "remove it, or add the field",
            )


def _check_agreement(profile: DeviceProfile) -> None:
    """What no single field can show."""
    if not profile.compute_capability.isdecimal() or len(profile.compute_capability) not in (2, 3):
        raise _wrong("compute_capability", 'two or three digits without a dot, as "87"', profile.compute_capability)
    if (profile.memory_reserved_bytes or 0) >= profile.memory_bytes:
        raise _wrong("memory_reserved_bytes", "less than memory_bytes", profile.memory_reserved_bytes)
    for mode in profile.power_modes:
        where = f"power_modes {mode.name}: "
        for field, most in (
            ("gpu_clock_hz", profile.gpu_clock_hz),
            ("memory_bandwidth_bytes_per_s", profile.memory_bandwidth_bytes_per_s),
            ("streaming_multiprocessors", profile.streaming_multiprocessors),
        ):
            value = getattr(mode, field)
            if value is not None and most is not None and value > most:
                raise _wrong(where + field, f"at most the device's {field}, {most:g}", value)


def _wrong(where: str, expected: str, found: object, next_step: str = "") -> DeviceError:
    return DeviceError(f"{where} must be {expected}", f"it is {found!r}", next_step or "correct the profile")
