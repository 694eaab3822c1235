"""Counts in words."""

from __future__ import annotations

#: Nouns whose singular is not the plural without its last letter.
_SINGULAR = {"matrices": "matrix", "entries": "entry", "passes": "pass", "batches": "batch", "processes": "process"}


def counted(count: int, plural: str) -> str:
    """ "1 matrix", "2,000 tokens": a count and what is counted, which is given in the plural."""
    return f"{count:,} {_SINGULAR.get(plural, plural.removesuffix('s')) if count == 1 else plural}"
