"""Typed access to the fields of a parsed manifest.json; errors name the field by its path ("model.layers")."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

from edgekit.errors import BundleError

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
EXPORT_AGAIN = "make the bundle again: edgekit export CHECKPOINT -o BUNDLE --dtype DTYPE"


def safe_name(name: str) -> str:
    """`name` if it is a plain path below the bundle. Raises BundleError for anything that could lead elsewhere."""
    path = PurePosixPath(name)
    odd = not name or name != str(path) or "\\" in name or ":" in name or not name.isprintable()
    if odd or path.is_absolute() or not path.parts or any(part in (".", "..") for part in path.parts):
        raise BundleError(
            "a manifest may only name files below its bundle",
            f"it names {name!r}",
            "do not use this bundle: it was not written by edgekit",
        )
    return name


class Fields:
    """Typed access to one JSON object; errors name the field by its path."""

    def __init__(self, value: object, prefix: str) -> None:
        if not isinstance(value, dict):
            raise mistyped(prefix.rstrip(".") or "the document", "an object", value)
        self.values: dict[str, Any] = value
        self.prefix = prefix

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise BundleError(
                f"{MANIFEST_NAME} has every field of schema {SCHEMA}", f"{self.prefix}{name} is missing", EXPORT_AGAIN
            )
        return self.values[name]

    def fields(self, name: str) -> Fields:
        return Fields(self._get(name), f"{self.prefix}{name}.")

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str) or not value:
            raise mistyped(self.prefix + name, "a text", value)
        return value

    def any_text(self, name: str) -> str:
        """A text that may be empty."""
        value = self._get(name)
        if not isinstance(value, str):
            raise mistyped(self.prefix + name, "a text", value)
        return value

    def digest(self, name: str) -> str:
        value = self.text(name)
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise mistyped(self.prefix + name, "64 hexadecimal digits", value)
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in choices:
            raise mistyped(self.prefix + name, f"one of {', '.join(choices)}", value)
        return value

    def integer(self, name: str, least: int = 0) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise mistyped(self.prefix + name, f"an integer of {least} or more", value)
        return value

    def number(self, name: str) -> float:
        value = self._get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise mistyped(self.prefix + name, "a number of 0 or more", value)
        return float(value)

    def optional_integer(self, name: str) -> int | None:
        return None if self._get(name) is None else self.integer(name)

    def boolean(self, name: str) -> bool:
        value = self._get(name)
        if not isinstance(value, bool):
            raise mistyped(self.prefix + name, "true or false", value)
        return value

    def sequence(self, name: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise mistyped(self.prefix + name, "a list", value)
        return value

    def objects(self, name: str) -> list[Fields]:
        """The objects of a list."""
        return [Fields(item, f"{self.prefix}{name}[{i}].") for i, item in enumerate(self.sequence(name))]

    def strings(self, name: str) -> tuple[str, ...]:
        values = self.sequence(name)
        if not all(isinstance(value, str) and value for value in values):
            raise mistyped(self.prefix + name, "a list of texts", values)
        return tuple(values)

    def integers(self, name: str, kind: str = "integers of 0 or more") -> tuple[int, ...]:
        values = self.sequence(name)
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise mistyped(self.prefix + name, f"a list of {kind}", values)
        return tuple(values)


def mistyped(field: str, expected: str, found: object) -> BundleError:
    shown = repr(found)
    return BundleError(
        f"{MANIFEST_NAME}: {field} must be {expected}",
        f"it is {shown if len(shown) <= 60 else shown[:60] + '...'}",
        EXPORT_AGAIN,
    )
