"""Finding the CUDA runtime: in the package index's wheels, in JetPack, or where the system has it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from edgekit.errors import SessionError
from edgekit.runtime.cuda import RETURNS, SIGNATURES, Cuda

#: Newest first; the functions used are the same in both. 12 is JetPack 6's.
MAJORS = (13, 12)
#: Where CUDA's own installers and JetPack put it.
TOOLKIT = Path("/usr/local/cuda")


@cache
def load_cuda() -> Cuda:
    """The CUDA runtime of this machine. Whether there is a GPU is another question: see Cuda.gpu.

    Raises:
        SessionError: none is found, or what is found lacks a function; says where it was looked for.
    """
    return cuda_from(list(candidates()))


def cuda_from(names: Sequence[str]) -> Cuda:
    """The first of these libraries that finds a GPU, else the first that loads. Raises SessionError naming them all.

    A driver knows CUDA up to its own version only, so the newest library may see no GPU where an older one does.
    """
    reasons, loaded = [], []
    for name in names:
        try:
            library = ctypes.CDLL(name)
            declare(library)
        except (OSError, AttributeError) as error:
            reasons.append(f"{name}: {error}")
            continue
        loaded.append(Cuda(library, name))
        if loaded[-1].gpu() is not None:
            return loaded[-1]
    if loaded:
        return loaded[0]
    raise SessionError(
        "decoding with TensorRT needs the CUDA runtime (libcudart)",
        f"tried {'; '.join(reasons) or 'nothing'}",
        "pip install nvidia-cuda-runtime (CUDA 13) or nvidia-cuda-runtime-cu12; on a Jetson it comes with JetPack",
    )


def declare(library: ctypes.CDLL) -> None:
    """Give every function its types: without them ctypes cuts 64-bit sizes. AttributeError where one is missing."""
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, RETURNS.get(name, ctypes.c_int)


def candidates(paths: Sequence[str] | None = None, toolkit: Path = TOOLKIT) -> Iterator[str]:
    """Where libcudart may be, likeliest first: files that are there, then the names the system's loader knows.

    Args:
        paths: of Python packages; None for this interpreter's.
    """
    for major in MAJORS:
        file = f"libcudart.so.{major}"
        for folder in map(Path, sys.path if paths is None else paths):
            # nvidia-cuda-runtime (13) and nvidia-cuda-runtime-cu12.
            for place in (f"nvidia/cu{major}/lib", "nvidia/cuda_runtime/lib"):
                if (found := folder / place / file).is_file():
                    yield str(found)
        for place in ("lib64", "lib", "targets/aarch64-linux/lib", "targets/x86_64-linux/lib"):
            if (found := toolkit / place / file).is_file():
                yield str(found)
        yield file
