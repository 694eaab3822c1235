"""Sizes of operands by letters: reading letters off given shapes, and evaluating `D/2` or `H*D`."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Sizes by the letter of their axis.
Sizes = dict[str, int]


def bind(sizes: Sizes, dims: Mapping[str, tuple[str, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Add to `sizes` what the shapes say about each letter, then check every expression.

    Raises:
        ValueError: the number of axes is wrong, or two operands disagree about a letter.
    """
    for name, letters in dims.items():
        if len(letters) != len(shapes[name]):
            raise ValueError(f"{name} has the axes [{', '.join(letters)}], but its shape is {tuple(shapes[name])}")
        for letter, size in zip(letters, shapes[name], strict=True):
            if letter.isidentifier():
                sizes.setdefault(letter, size)
    for name, letters in dims.items():
        for letter, size in zip(letters, shapes[name], strict=True):
            want = evaluate(letter, sizes)
            if want != size:
                raise ValueError(f"{name} is {tuple(shapes[name])}, but {letter} is {want} by the other operands")


def evaluate(dim: str, sizes: Mapping[str, int]) -> int:
    """A letter, or letters and whole numbers joined by `*`, `/` (exact) and `+`, read from left to right.

    Raises:
        ValueError: a letter is not known, or a division leaves a remainder.
    """
    value, operation = 0, "+"
    for token in re.findall(r"\w+|[*/+]", dim):
        if token in "*/+":
            operation = token
            continue
        if not token.isdigit() and token not in sizes:
            raise ValueError(f"no operand tells the size {token}")
        operand = int(token) if token.isdigit() else sizes[token]
        if operation == "/" and value % operand:
            raise ValueError(f"{dim} must be a whole number, and {value} / {operand} is none")
        value = {"+": value + operand, "*": value * operand, "/": value // max(operand, 1)}[operation]
    return value
