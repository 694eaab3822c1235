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
from edgekit.errors import EdgekitError, SessionError

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
_PLUGINS_ONLY = f"the form {contract.FORM_JETPACK6} has its operators as plugins only, so here they must run natively"


def operator_support(
    operators: Sequence[str], backend: str, choice: str = "auto", *, bodies: bool = True
) -> OperatorSupport:
    """How these operators (their names) run on a backend. Says on stderr, once, why the library cannot be had.

    Args:
        bodies: whether the graph carries function bodies; without them the operators run natively or not at all.

    Raises:
        SessionError: `choice` is unknown; or the operators must run natively and cannot.
    """
    if choice not in CHOICES:
        raise SessionError(f"operators run as one of {', '.join(CHOICES)}", f"{choice!r} was asked for")
    if not operators:
        return NO_OPERATORS
    names = " and ".join(operators)
    if choice == "functions":
        if bodies:
            return OperatorSupport(None, f"{names} as standard operators, as asked")
        raise SessionError(
            _PLUGINS_ONLY, "standard operators were asked for", "leave --operators out, or export another --form"
        )
    missing = None
    if backend != "cpu":
        why, next_step = f"the native library is for the CPU, the backend is {backend}", "choose --backend cpu"
    else:
        library = _library()
        if isinstance(library, Path):
            return OperatorSupport(library, f"{names} native")
        missing, why, next_step = library, library.fact or library.rule, library.next_step
    if not bodies:
        raise SessionError(_PLUGINS_ONLY, why, f"{next_step}; or export another --form")
    if choice == "native":
        raise SessionError(
            f"{names} must run natively, as asked",
            why,
            f"{next_step}; or choose --operators functions, which is slower",
        )
    if missing is not None:
        _note(f"note: {missing}\nuntil then, operators run as standard ones, which is slower")
    return OperatorSupport(None, f"{names} as standard operators, slower, because {why}")


def support_for(bundle: Bundle, backend: str, choice: str = "auto") -> OperatorSupport:
    """`operator_support` for a bundle's operators."""
    manifest = bundle.manifest
    names = [use.name for use in manifest.operators]
    return operator_support(names, backend, choice, bodies=manifest.form != contract.FORM_JETPACK6)


@cache
def _library() -> Path | EdgekitError:
    """The native library, built once where need be; or why there is none."""
    from edgekit.native import NativeUnavailable, ort_library

    try:
        return ort_library(_say)
    except NativeUnavailable as error:
        return error


@cache
def _note(text: str) -> None:
    _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
