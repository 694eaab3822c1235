"""What TensorRT says while it loads and runs an engine: its reasons are only there."""

from __future__ import annotations

from functools import cache
from typing import Any

#: Messages kept; a long chat must not fill the memory.
_MOST = 200


@cache
def logger(trt: Any) -> Any:
    """The process's one logger for this TensorRT module, which keeps the first that it is given."""

    class Collected(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
                del self.errors[:-_MOST]

        def begin(self) -> None:
            """Forget earlier errors."""
            self.errors.clear()

        def reason(self) -> str:
            """The first error since `begin`, in one line; what to say where there is none."""
            return " ".join(self.errors[0].split())[:500] if self.errors else "TensorRT gave no reason"

    return Collected()
