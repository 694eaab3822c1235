"""What `edgekit bench --draft` found of a bundle's draft heads in conversations."""

from __future__ import annotations

from edgekit.bundle import Bundle, read_sidecar

#: How measurements name heads (`edgekit.runtime.drafting.open.HEADS`, which opens sessions; a test compares them).
HEADS = "cp"


def benched_chances(bundle: Bundle, count: int) -> tuple[float | None, ...]:
    """For each of `count` positions the chance of a drafted token to be accepted, given that those before it were.

    Means over all groups of conversations, weighted by tokens drafted; None where nothing was drafted so far, or
    nothing measured with this bundle.

    Raises:
        BundleError: the measurement is no JSON.
    """
    drafted = (read_sidecar(bundle, "bench") or {}).get("draft")
    sums, weights = [0.0] * count, [0.0] * count
    try:
        for group in drafted["groups"] if drafted else ():
            source = group["draft"]["sources"].get(HEADS)
            for place, chance in enumerate(source["acceptance_by_position"][:count] if source else ()):
                if chance is not None:
                    sums[place] += source["drafted"] * chance
                    weights[place] += source["drafted"]
    except (KeyError, TypeError, AttributeError):  # of another version: not a measurement of this
        return (None,) * count
    return tuple(total / weight if weight else None for total, weight in zip(sums, weights, strict=True))
