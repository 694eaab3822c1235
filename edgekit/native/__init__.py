"""Native code of the operators, compiled on the machine that runs it, at the first use."""

from edgekit.native.compiler import Compiler, NativeUnavailable
from edgekit.native.library import built_library, ort_library

__all__ = ["Compiler", "NativeUnavailable", "built_library", "ort_library"]
