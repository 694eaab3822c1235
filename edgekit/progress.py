"""How long work tells what it is doing. Library code takes a `Progress`; only the command line draws one."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the course of a piece of work: a sequence of stages, each of which may count towards a total."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """A stage begins, and the one before it, if any, is done.

        Args:
            name: what is being done, as shown to a person ("tracing").
            total: how much there is to do; None when unknown.
            unit: what is counted ("tensors", "tokens"); "bytes" may be shown as megabytes.
        """

    def advance(self, n: int = 1) -> None:
        """`n` more of the current stage are done."""

    def note(self, text: str) -> None:
        """One line worth keeping: something was skipped, chosen or found."""


class SilentProgress:
    """Shows nothing."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        pass

    def advance(self, n: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass
