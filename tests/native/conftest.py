"""Native code: a compiler is needed, and its absence is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.native import NativeUnavailable, ort_library
from edgekit.native.compiler import Compiler, find_compiler


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """The compiler of this machine."""
    try:
        return find_compiler()
    except NativeUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def library(compiler: Compiler) -> Path:
    """The library of native CPU operators. With a compiler there, a failure to build it fails the tests."""
    return ort_library(lambda text: None)
