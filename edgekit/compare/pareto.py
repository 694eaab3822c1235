"""Which bundles another one beats in size and in quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Standing:
    """Why a bundle need not be chosen.

    Attributes:
        by: a bundle that is no larger and no worse in any measure, and better in size or one of them; the best of
            those there are.
        certain: whether it is better in the first measure by more than the error; None where that has no error.
        faster: how much faster the beaten one decodes all the same, as a ratio; None where it is not, or not known.
    """

    by: str
    certain: bool | None
    faster: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """A bundle's size, its quality, and its tokens or texts per second where known.

    Attributes:
        badness: measures of which less is better, the one that decides between winners first.
        likeness: how many of the last measures tell how like the reference it is.
        is_reference: it is like itself by definition: likeness decides nothing between it and another.
    """

    bytes: int
    badness: tuple[float, ...]
    speed: float | None = None
    likeness: int = 0
    is_reference: bool = False


def beaten(
    candidates: Mapping[str, Candidate], certain: Callable[[str, str], bool | None] = lambda winner, loser: None
) -> dict[str, Standing]:
    """Of each candidate that is beaten what beats it.

    Args:
        certain: whether the first is no worse than the second in the first measure, beyond doubt.
    """
    found = {}
    for label, own in candidates.items():
        winners = [name for name, other in candidates.items() if _beats(other, own)]
        if winners:
            by = min(winners, key=lambda name: (not certain(name, label), candidates[name].badness))
            other = candidates[by]
            faster = own.speed / other.speed if own.speed and other.speed and own.speed > other.speed else None
            found[label] = Standing(by, certain(by, label), faster)
    return found


def _beats(other: Candidate, own: Candidate) -> bool:
    with_reference = own.is_reference or other.is_reference
    count = len(own.badness) - own.likeness if with_reference else len(own.badness)
    pairs = [(other.bytes, own.bytes), *zip(other.badness[:count], own.badness[:count], strict=True)]
    return all(theirs <= ours for theirs, ours in pairs) and any(theirs < ours for theirs, ours in pairs)
