"""The engines that a bundle can be opened with, by the name that --backend takes.

Adding one is an entry here and a module with a function `open_session(bundle, threads=, capacity=, operators=)`. The
command line reads the names, so nothing heavy is imported before a backend is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from edgekit.errors import SessionError


@dataclass(frozen=True)
class Backend:
    """How bundles are opened with a backend.

    Attributes:
        module: has `open_session`.
        arguments: what it is told beside the bundle.
        library: the Python package that it loads first, so that the time this takes can be told; "" where the bundle
            decides which.
        on_cpu: whether weights are read from the CPU's memory by the CPU.
    """

    module: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    library: str = ""
    on_cpu: bool = False

    @property
    def opener(self) -> Callable[..., Any]:
        """The function that opens a bundle."""
        return partial(import_module(self.module).open_session, **self.arguments)


_ALL = {
    "cpu": Backend("edgekit.runtime.ort_session", {"backend": "cpu"}, "onnxruntime", on_cpu=True),
    "cuda": Backend("edgekit.runtime.ort_session", {"backend": "cuda"}, "onnxruntime"),
    "tensorrt": Backend("edgekit.runtime.trt_bundle"),
}

BACKENDS = tuple(_ALL)


def backend_named(name: str) -> Backend:
    """The backend of that name. Raises SessionError naming those there are."""
    if name not in _ALL:
        raise SessionError(f"a backend is one of {', '.join(BACKENDS)}", f"it is {name!r}")
    return _ALL[name]
