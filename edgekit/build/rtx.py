"""Loading TensorRT-RTX from its Python package.

The package's ONNX parser opens `libtensorrt_rtx.so`, but the package holds only `libtensorrt_rtx.so.1`; without help,
the first node that is a plugin ends the process. The libraries are therefore loaded through a directory of links that
has both names; the parser looks for its sibling in the directory that it was loaded from.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import importlib.util
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.errors import BuildError

#: What `pip install` knows it by, for CUDA 13.
PACKAGE = "tensorrt-rtx-cu13"
_LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")


@cache
def load() -> Any:
    """The module `tensorrt_rtx`, fit to parse graphs with plugins. Needs no GPU to build engines.

    Raises:
        BuildError: the package is not installed, or without its libraries.
    """
    libraries = _libraries()
    links = Path(tempfile.mkdtemp(prefix="edgekit-tensorrt-"))
    # The parser follows its link when it meets the first plugin, so the directory stays as long as the process.
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    for library in libraries.glob("*.so.*"):
        (links / library.name).symlink_to(library)
        (links / (library.name.split(".so")[0] + ".so")).symlink_to(library)
    try:
        for name in _LIBRARIES:
            ctypes.CDLL(str(links / name))
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise missing(str(error)) from error


def _libraries() -> Path:
    """The directory of the package's libraries."""
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    if importlib.util.find_spec("tensorrt_rtx") is None:
        regular = importlib.util.find_spec("tensorrt") is not None
        raise missing("it is not installed" + (" (`tensorrt` is, which is another product)" if regular else ""))
    if found is None or not found.submodule_search_locations:
        raise missing("tensorrt_rtx is installed without its libraries (tensorrt_rtx_libs)")
    folder = Path(next(iter(found.submodule_search_locations)))
    absent = [name for name in _LIBRARIES if not (folder / name).is_file()]
    if absent:
        raise missing(f"{folder} has no {absent[0]}")
    return folder


def missing(fact: str) -> BuildError:
    """The error for a TensorRT-RTX that is not there."""
    return BuildError(
        "building an engine for an RTX GPU needs TensorRT-RTX", fact, f"pip install {PACKAGE} (x86-64 Linux)"
    )
