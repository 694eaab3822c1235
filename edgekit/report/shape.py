"""Checking a JSON document before its fields are used: nothing that was edited or is of another version is guessed at.

A shape is a type (`float` takes whole numbers too), None, a tuple of alternatives, `[shape]` for a list of any length,
or a dictionary of the fields that must be there; others are ignored.
"""

from __future__ import annotations

import math
from typing import Any

from edgekit.errors import BundleError

Shape = Any
NUMBER = (float, None)
#: What `edgekit.benchmark.samples.summary` makes.
SAMPLES = {"median": float, "mean": float, "stdev": NUMBER, "min": float, "samples": [float]}


def require_shape(document: Any, shape: Shape, file: str, next_step: str) -> None:
    """Raise BundleError, naming the field, unless the document has the shape.

    Args:
        file: what is checked, for people.
    """
    objection = misfit(document, shape)
    if objection is not None:
        where, expected = objection
        raise BundleError(f"{file}: {where or 'the document'} must be {expected}", "it is not", next_step)


def misfit(value: Any, shape: Shape, where: str = "") -> tuple[str, str] | None:
    """The first place that does not fit, with what is due there; None when all fits."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return where, "an object"
        for name, inner in shape.items():
            place = f"{where}.{name}".lstrip(".")
            if name not in value:
                return place, "there"
            if (found := misfit(value[name], inner, place)) is not None:
                return found
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where, "a list"
        each = (misfit(entry, shape[0], f"{where}[{index}]") for index, entry in enumerate(value))
        return next((objection for objection in each if objection is not None), None)
    if isinstance(shape, tuple):
        tried = [misfit(value, each, where) for each in shape]
        return None if None in tried else tried[0]
    return None if _is(value, shape) else (where, _NAMES[shape])


_NAMES: dict[Any, str] = {
    float: "a finite number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    None: "null",
}


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
