"""TensorRT's messages, collected: its errors and its memory figures are only there."""

from __future__ import annotations

import re
from functools import cache
from typing import Any


@cache
def logger(trt: Any) -> Any:
    """The process's one logger for this TensorRT: it keeps the first that a builder is given and ignores others."""

    class Collected(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append((severity, message))

        def begin(self) -> None:
            """Forget the messages of an earlier build."""
            self.messages.clear()

        def first_error(self) -> str:
            """The first line of the first error that is not about the missing GPU; "" if there is none."""
            worst = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            errors = [text.splitlines()[0] for severity, text in self.messages if severity in worst]
            return next((text for text in errors if "cudaError 35" not in text), errors[0] if errors else "")

        def figure(self, name: str) -> int | None:
            """The largest number of bytes in messages "<name>: <number> bytes": each profile has one."""
            pattern = re.compile(rf"{re.escape(name)}: (\d+) bytes")
            return max((int(match[1]) for _, text in self.messages if (match := pattern.search(text))), default=None)

    return Collected()
