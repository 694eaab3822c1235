"""Figures in words, shared by the terminal and the page."""

from __future__ import annotations

from edgekit.plan.estimate import Estimate


def gigabytes(count: float) -> str:
    """Decimal units: "1.08 GB", "21 MB"."""
    return f"{count / 1e9:,.2f} GB" if count >= 999.5e6 else f"{count / 1e6:,.0f} MB"


def size(estimate: Estimate) -> str:
    """ "1.08 GB (0.78 to 1.48)"; the range is left out where there is none."""
    return gigabytes(estimate.value) + span(estimate, 1e9 if estimate.value >= 999.5e6 else 1e6)


def rate(estimate: Estimate) -> str:
    """ "112 (90 to 132)"."""
    return f"{figure(estimate.value)}{span(estimate, 1)}"


def duration(estimate: Estimate) -> str:
    """ "20 ms (17 to 25)" or "1.4 s (1.1 to 1.8)"."""
    if estimate.value < 1:
        return f"{figure(1e3 * estimate.value)} ms{span(estimate, 1e-3)}"
    return f"{figure(estimate.value)} s{span(estimate, 1)}"


def span(estimate: Estimate, unit: float) -> str:
    """ " (0.78 to 1.48)", or nothing."""
    low, high = figure(estimate.low / unit), figure(estimate.high / unit)
    return f" ({low} to {high})" if low != high else ""


def figure(value: float) -> str:
    """Two or three digits: "0.78", "4.6", "112", "1,840"."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
