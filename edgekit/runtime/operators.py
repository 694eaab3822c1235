"""How a graph's custom operators run: by the native library, or by the function bodies that the graph carries.

The function bodies are standard ONNX: they run everywhere, slower, and with a cache that grows by concatenation. The
choice is made once per session and said in words.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.errors import SessionError

#: What may be asked for: the library where it can be had, the library or an error, the function bodies.
CHOICES = ("auto", "native", "functions")


@dataclass(frozen=True)
class OperatorSupport:
    """How custom operators run.

    Attributes:
        library: the native library; None where function bodies run.
        description: for people: "native operators" or why not; empty for a graph without custom operators.
    """

    library: Path | None
    description: str

    def register(self, options: Any) -> None:
        """Add the library to onnxruntime.SessionOptions, where there is one."""
        if self.library is not None:
            options.register_custom_ops_library(str(self.library))

    def cache_kind(self, kind: str) -> str:
        """The cache of a bundle of that kind: function bodies cannot write in place."""
        return contract.CACHE_CONCAT if self.description and self.library is None else kind


#: Of a graph without custom operators.
NO_OPERATORS = OperatorSupport(None, "")


def operator_support(operators: Sequence[str], backend: str, choice: str = "auto") -> OperatorSupport:
    """How these operators (their names) run on a backend.

    Raises:
        SessionError: `choice` is unknown, or "native" cannot be had.
    """
    if choice not in CHOICES:
        raise SessionError(f"operators run as one of {', '.join(CHOICES)}", f"{choice!r} was asked for")
    if not operators:
        return NO_OPERATORS
    names = " and ".join(operators)
    if choice == "functions":
        return OperatorSupport(None, f"{names} as standard operators, as asked")
    if backend != "cpu":
        why = f"the native library is for the CPU, the backend is {backend}"
        next_step = "choose --backend cpu, or --operators functions"
    else:
        library = _library()
        if isinstance(library, Path):
            return OperatorSupport(library, f"{names} native")
        why, next_step = library
    if choice == "native":
        raise SessionError(f"{names} must run natively, as asked", why, next_step)
    return OperatorSupport(None, f"{names} as standard operators, slower, because {why}")


def support_for(bundle: Bundle, backend: str, choice: str = "auto") -> OperatorSupport:
    """`operator_support` for a bundle's operators.

    Raises:
        SessionError: see `operator_support`; or the bundle's form holds no function bodies and they would have to run.
    """
    manifest = bundle.manifest
    support = operator_support([use.name for use in manifest.operators], backend, choice)
    if manifest.form == contract.FORM_JETPACK6 and support.description and support.library is None:
        raise SessionError(
            f"the form {manifest.form} has its operators as plugins only, so here they must run natively",
            support.description,
            "run it with --backend cpu on a machine with a C++ compiler, or export another --form",
        )
    return support


@cache
def _library() -> Path | tuple[str, str]:
    """The native library, built once where need be; or why there is none and what to do."""
    from edgekit.native import NativeUnavailable, ort_library

    try:
        return ort_library(_say)
    except NativeUnavailable as error:
        _say(f"note: {error}")
        return error.fact or error.rule, error.next_step


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
