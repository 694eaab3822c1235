"""Strict reading of TOML tables into frozen dataclasses: unknown keys, wrong types and wrong values are refused.

A field's type is its annotation: str, int, float, bool, tuple[str, ...], dict[str, str], or one of these with None for
an absent key. Its metadata narrows it: `choices` lists the allowed texts, `least` is the smallest number.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_type_hints

from edgekit.errors import RecipeError

Table = TypeVar("Table")

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def key(default: Any = MISSING, *, choices: tuple[str, ...] = (), least: float | None = None) -> Any:
    """A dataclass field of a recipe table; without a default the key is required."""
    return field(default=default, metadata={"choices": choices, "least": least})


def table_from(kind: type[Table], document: object, where: str) -> Table:
    """A parsed TOML table as `kind`.

    Args:
        document: what the TOML reader gave.
        where: the table's name for messages, e.g. "[quantization]".

    Raises:
        RecipeError: naming the key and, for an unknown one, the nearest known ones.
    """
    if not isinstance(document, dict):
        raise RecipeError(
            f"{where} of a recipe must be a table", f"it is {document!r}", f"write its keys below {where}"
        )
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(document, list(known), where)
    hints = get_type_hints(kind)
    values = {}
    for name, item in known.items():
        if name in document:
            values[name] = _checked(document[name], hints[name], item, f"{where} {name}")
        elif item.default is MISSING:
            raise RecipeError(
                f"{where} of a recipe must have {name}", "it is missing", _expected(hints[name], item, name)
            )
    return kind(**values)


def refuse_unknown(document: dict[str, Any], known: list[str], where: str) -> None:
    """Raise RecipeError for the first key that is not known, with the nearest ones."""
    for name in document:
        if name not in known:
            near = get_close_matches(name, known, n=2, cutoff=0.5)
            raise RecipeError(
                f"{where} of a recipe may hold only what edgekit knows",
                f"it holds {name!r}",
                f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}",
            )


def _checked(value: object, hint: Any, item: Field[Any], where: str) -> Any:
    """`value` if it has the field's type and an allowed value."""
    if hint == dict[str, str]:
        if not isinstance(value, dict) or not value or not all(isinstance(entry, str) for entry in value.values()):
            raise _wrong(where, "a table of texts that is not empty", value)
        return dict(value)
    if hint in (tuple[str, ...], tuple[str, ...] | None):
        if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
            raise _wrong(where, "a list of texts", value)
        return tuple(value)
    kind = _plain(hint)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # bool is a subclass of int, and 1.0 is no whole number in TOML
        raise _wrong(where, _WORDS[kind], value)
    choices, least = item.metadata.get("choices"), item.metadata.get("least")
    if choices and value not in choices:
        near = get_close_matches(str(value), choices, n=1, cutoff=0.5)
        raise _wrong(where, f"one of {', '.join(choices)}", value, f"did you mean {near[0]!r}?" if near else "")
    if least is not None and not value >= least:
        raise _wrong(where, f"at least {least}", value)
    if kind is str and not value:
        raise _wrong(where, "a text that is not empty", value)
    return value


def _plain(hint: Any) -> Any:
    """The type without its None."""
    alternatives = [part for part in get_args(hint) if part is not type(None)]
    return alternatives[0] if alternatives else hint


def _expected(hint: Any, item: Field[Any], name: str) -> str:
    if choices := item.metadata.get("choices"):
        return f"write {name} = " + " or ".join(f'"{choice}"' for choice in choices)
    return f"add {name}: {_WORDS.get(_plain(hint), 'a table of texts')}"


def _wrong(where: str, expected: str, found: object, next_step: str = "") -> RecipeError:
    return RecipeError(f"{where} must be {expected}", f"it is {found!r}", next_step or "correct the recipe")
