"""What a report is made from: a bundle, what was measured of it, and result files that came from devices."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from edgekit.bundle import SIDECARS, Bundle, Measurement, find_measurement
from edgekit.report.blocks import Note, State
from edgekit.report.graph import GraphFacts, graph_facts
from edgekit.report.kit_result import KitResult
from edgekit.report.shape import Shape, require_shape


@dataclass(frozen=True)
class Source:
    """A bundle with its measurements by name ("parity", "eval", "bench"), stale ones included."""

    bundle: Bundle
    measurements: dict[str, Measurement]
    kits: tuple[KitResult, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle, kits: tuple[KitResult, ...] = ()) -> Source:
        """Read what lies beside the manifest. Raises BundleError where it is damaged."""
        found = {name: find_measurement(bundle, name) for name in SIDECARS}
        return cls(bundle, {name: entry for name, entry in found.items() if entry is not None}, kits)

    @cached_property
    def graph(self) -> GraphFacts | None:
        """What the graph holds; None without the package onnx."""
        return graph_facts(self.bundle)

    def state(self, name: str) -> State:
        """How a measurement stands."""
        found = self.measurements.get(name)
        if found is None:
            return "missing"
        return "ok" if found.current else "stale"

    def command(self, verb: str, rest: str = "") -> str:
        """The command that measures."""
        return f"edgekit {verb} {quoted(str(self.bundle.path))}{' ' + rest if rest else ''}"

    def document(self, name: str, shape: Shape) -> dict[str, Any] | None:
        """A measurement, stale ones included; None where there is none.

        Raises:
            BundleError: it lacks fields of `shape`.
        """
        found = self.measurements.get(name)
        if found is None:
            return None
        again = f"measure again: {self.command(name)}"
        require_shape(found.document, shape, f"{name}.json of {self.bundle.path}", again)
        return found.document

    def data(self, name: str) -> dict[str, Any] | None:
        """A measurement with what it is tied by, for JSON."""
        found = self.measurements.get(name)
        return None if found is None else asdict(found)

    def missing(self, what: str, verb: str, rest: str = "") -> Note:
        """Says that nothing was measured, and how to."""
        return Note(f"{what} has not been measured with this bundle. To measure it:", command=self.command(verb, rest))

    def stale(self, verb: str, rest: str = "") -> tuple[Note, ...]:
        """Says that a measurement is not this bundle's; nothing where it is."""
        found = self.measurements.get(verb)
        if found is None or found.current:
            return ()
        of = f"manifest {found.manifest_sha256[:12]}" if found.manifest_sha256 else "no manifest that it names"
        text = (
            f"This is stale: it was measured with another state of the bundle ({of}; the present one is "
            f"{self.bundle.manifest_sha256[:12]}). It says nothing certain about the files that are here now. "
            "To measure again:"
        )
        return (Note(text, "warn", self.command(verb, rest)),)

    def when(self, name: str) -> str:
        """ "2026-11-26 16:09 UTC"; empty where it is not known."""
        found = self.measurements.get(name)
        if found is None or found.measured_at is None:
            return ""
        return moment(found.measured_at)


def moment(iso: str) -> str:
    """A time as kept in a measurement for people: "2026-11-26 16:09 UTC"; what is no such time as it is."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso


def quoted(word: str) -> str:
    """A word as a shell takes it."""
    import shlex

    return shlex.quote(word)
