"""Long work that ends where it can be resumed: the first Ctrl-C asks it to stop, the second interrupts it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C only asks to stop, which the run does after its step; the second one interrupts at once."""
    seen = False

    def ask(signal_number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True
        click.echo("stopping after this step ... (Ctrl-C again to stop at once)", err=True)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)
