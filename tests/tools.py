"""Tools that some tests need: whether they are here, and what their absence means."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from edgekit.native import NativeUnavailable
from edgekit.native.compiler import find_compiler

#: Where the CUDA toolkit is that is not on the PATH.
CUDA = Path("/usr/local/cuda/bin")


def lacking(reason: str) -> NoReturn:
    """Skip the test; or fail it with EDGEKIT_CI=1, which says that nothing may be missing."""
    if os.environ.get("EDGEKIT_CI") == "1":
        pytest.fail(f"{reason}, and EDGEKIT_CI is set", pytrace=False)
    pytest.skip(reason)


def nvcc() -> Path | None:
    """nvcc, on the PATH or in CUDA."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path=str(CUDA))
    return Path(found) if found else None


def no_nvcc() -> str | None:
    """Why nothing can be compiled by nvcc, or None."""
    return None if nvcc() else f"nvcc is neither on the PATH nor in {CUDA}"


def no_native_compiler() -> str | None:
    """Why no native operators can be compiled, or None. A compiler that fails on them is no reason to skip."""
    try:
        find_compiler()
    except NativeUnavailable as error:
        return f"no native operators: {error}"
    return None
