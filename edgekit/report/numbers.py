"""Numbers as a reader wants them: three digits that count, with the unit's prefix chosen by size."""

from __future__ import annotations

import math

#: Decimal prefixes from the smallest on; bytes are counted in thousands, as everywhere in edgekit.
_PREFIXES = ((1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
#: Joins a number and its unit: they are never parted at the end of a line.
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
#: Units that come as wholes, or that nobody writes with a prefix.
_WHOLE = ("B", "")


def plain(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits and thousands separated: "0.00379", "40.2", "1,389"."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}")
    rounded = round(value, digits - 1 - exponent)
    exponent = math.floor(math.log10(abs(rounded)))  # 9.996 has become 10
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}".replace("-", "\N{MINUS SIGN}")


def scaled(largest: float, unit: str) -> tuple[float, str]:
    """The factor and the unit with its prefix that suit numbers up to `largest`: (1000.0, "ms") for 0.04 s.

    Units that are no unit of measure ("tokens/s", "%") keep to themselves: (1.0, unit).
    """
    if unit not in ("s", "B", "B/s", "FLOP", "FLOP/s") or largest <= 0 or not math.isfinite(largest):
        return 1.0, unit
    least = 1.0 if unit.startswith("B") else 1e-9
    # 999.7 would be shown as 1,000: it belongs to the next prefix.
    fitting = [(size, prefix) for size, prefix in _PREFIXES if least <= size and (size <= largest * 1.0005)]
    size, prefix = fitting[-1] if fitting else (least, dict(_PREFIXES)[least])
    if unit == "s" and size > 1:
        size, prefix = 1.0, ""
    return 1 / size, prefix + unit


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """A number with its unit: "40.2 ms", "158 MB", "40.7 GB/s", "26.8 tokens/s"."""
    factor, shown = scaled(abs(value), unit)
    if factor == 1 and unit in _WHOLE and float(value).is_integer():
        return f"{int(value):,}{NO_BREAK_SPACE}{shown}".rstrip()
    return f"{plain(value * factor, digits)}{NO_BREAK_SPACE}{shown}".rstrip()


def bound(value: float) -> str:
    """A limit that somebody chose: "0.0001", not "0.000100"."""
    shown = f"{value:.6f}".rstrip("0").rstrip(".")
    return shown if float(shown) == value else f"{value:g}"


def percent(share: float, digits: int = 3) -> str:
    """A share (0 to 1) as "97.2 %"; what is smaller than 0.01 % as that."""
    if 0 < share < 1e-4:
        return f"< 0.01{NO_BREAK_SPACE}%"
    return f"{plain(share * 100, digits)}{NO_BREAK_SPACE}%"


def change(ratio: float) -> str:
    """A ratio as a signed change: 1.0234 is "+2.34 %"."""
    value = (ratio - 1) * 100
    sign = "+" if value >= 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(value):.2f}{NO_BREAK_SPACE}%"


def count(number: int, one: str, many: str | None = None) -> str:
    """ "1 layer", "30 layers"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
