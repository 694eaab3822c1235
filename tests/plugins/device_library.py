"""CUDA kernels of an operator compiled by nvcc for a GPU, with a plain C entry, called with addresses of its memory.

No TensorRT is needed. Libraries are kept in the cache by a digest of their sources, so that they can be compiled
without a GPU and carried to a machine that has one:

    EDGEKIT_CACHE=FOLDER python -m tests.plugins.device_library 90
    (there) EDGEKIT_CACHE=FOLDER python -m pytest -m gpu tests/gpu tests/ops/test_parity.py
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgekit.files import cache_dir
from tests import tools
from tests.plugins.host_library import ELEMENTS, PLUGINS, SIZES, TENSORS, TT_SIZES, TT_TENSORS

FLAGS = ("-std=c++17", "-O3", "-lineinfo", "-Xcompiler=-fPIC,-Wall", "--cudart=static")
#: In the order of the operators' test_params.h.
APPEND_SIZES = ("batch", "fresh", "total", "past_slots", "present_slots", "row_bytes")
APPEND_TENSORS = ("past", "new", "present")
STEMS = ("tpa_append", "tpa_attention", "tt_sparse_linear")

_int, _text, _pointer, _size = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
_sizes, _scales, _tensors = (ctypes.POINTER(kind) for kind in (ctypes.c_int64, ctypes.c_double, ctypes.c_void_p))
#: What each library exports: result and arguments. Without them ctypes would cut addresses to 32 bits.
SIGNATURES: dict[str, dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "tpa_append": {"tpa_append_on_device": (_int, (_sizes, _tensors, _pointer))},
    "tpa_attention": {
        "tpa_attention_problem": (_text, (_int, _sizes)),
        "tpa_attention_workspace": (_size, (_int, _sizes)),
        "tpa_attention_on_device": (_int, (_int, _sizes, _scales, _tensors, _pointer, _pointer)),
    },
    "tt_sparse_linear": {
        "tt_sparse_linear_problem": (_text, (_int, _sizes)),
        "tt_sparse_linear_workspace": (_size, (_int, _sizes)),
        "tt_sparse_linear_on_device": (_int, (_int, _sizes, _tensors, _pointer, _pointer)),
    },
}


def library_path(stem: str, capability: str) -> Path:
    """Where the library of an operator is, or would be, for a compute capability without the dot."""
    files = [path for folder in (PLUGINS / stem, PLUGINS / "common") for path in sorted(folder.glob("*"))]
    content = b"".join(path.name.encode() + path.read_bytes() for path in files if path.suffix in (".h", ".cuh"))
    content += b"".join(path.name.encode() + path.read_bytes() for path in sources(stem))
    digest = hashlib.sha256(content + " ".join(FLAGS).encode()).hexdigest()[:16]
    return cache_dir() / "kernels_on_device" / f"{stem}-sm{capability}-{digest}.so"


def sources(stem: str) -> list[Path]:
    """What is compiled."""
    folder = PLUGINS / stem
    return sorted([*folder.glob("kernel*.cu"), *folder.glob("launch.cpp"), folder / "device_test.cpp"])


def missing_library(capability: str) -> str | None:
    """Why the kernels cannot be called on such a GPU, or None. Sources that do not compile are no reason."""
    if all(library_path(stem, capability).is_file() for stem in STEMS):
        return None
    reason = tools.no_nvcc()
    return reason and f"no kernels compiled for compute capability {capability} in the cache, and {reason}"


def build(stem: str, capability: str) -> Path:
    """The library, compiled unless the cache has it. AssertionError with nvcc's words where that fails."""
    target = library_path(stem, capability)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}")
    code = f"-gencode=arch=compute_{capability},code=sm_{capability}"
    objects = [part.with_name(f"{part.name}.{source.name}.o") for source in sources(stem)]
    try:
        with ThreadPoolExecutor(min(len(objects), os.cpu_count() or 1)) as pool:
            jobs = zip(sources(stem), objects, strict=True)
            list(pool.map(lambda job: _nvcc(code, "-c", str(job[0]), "-o", str(job[1])), jobs))
        _nvcc(code, "-shared", *map(str, objects), "-o", str(part))
        os.replace(part, target)
    finally:
        for path in (*objects, part):
            path.unlink(missing_ok=True)
    return target


def _nvcc(*arguments: str) -> None:
    done = subprocess.run([str(tools.nvcc()), *FLAGS, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@functools.cache
def library(stem: str, capability: str) -> ctypes.CDLL:
    """The library, loaded."""
    loaded = ctypes.CDLL(str(build(stem, capability)))
    for name, (result, arguments) in SIGNATURES[stem].items():
        function = getattr(loaded, f"edgekit_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


class Kernels:
    """The operators' launchers for one compute capability, by sizes and addresses.

    Every method enqueues and returns cudaError_t; what goes wrong while a kernel runs shows when its stream is waited
    for. Addresses are of the GPU's memory; an operand that is not there is left out.
    """

    def __init__(self, capability: str) -> None:
        self.capability = capability

    def problem(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> str | None:
        """Why the launcher refuses these sizes, or None; tpa_append has no such entry."""
        if stem == "tpa_append":
            return None
        function = getattr(library(stem, self.capability), f"edgekit_{stem}_problem")
        said = function(ELEMENTS[dtype], _array(stem, sizes))
        return None if said is None else str(said.decode())

    def workspace_bytes(self, stem: str, dtype: str, sizes: Mapping[str, int]) -> int:
        """Bytes of workspace that a launch needs."""
        if stem == "tpa_append":
            return 0
        function = getattr(library(stem, self.capability), f"edgekit_{stem}_workspace")
        return int(function(ELEMENTS[dtype], _array(stem, sizes)))

    def launch(
        self,
        stem: str,
        dtype: str,
        sizes: Mapping[str, int],
        addresses: Mapping[str, int],
        *,
        stream: int,
        workspace: int = 0,
        scales: Sequence[float] = (1.0, 1.0),
    ) -> int:
        """One call of the operator; `scales` are scale and value_scale of tpa_attention."""
        return prepared(library(stem, self.capability), stem, dtype, sizes, addresses, workspace, scales)(stream)


def prepared(
    loaded: Any,
    stem: str,
    dtype: str,
    sizes: Mapping[str, int],
    addresses: Mapping[str, int],
    workspace: int,
    scales: Sequence[float],
) -> Any:
    """The call with everything but its stream converted once, so that enqueueing it takes little time."""
    function = getattr(loaded, f"edgekit_{stem}_on_device")
    names = {"tpa_append": APPEND_TENSORS, "tpa_attention": TENSORS, "tt_sparse_linear": TT_TENSORS}[stem]
    assert set(addresses) <= set(names), set(addresses) - set(names)
    given = _array(stem, sizes)
    pointers = (ctypes.c_void_p * len(names))(*(addresses.get(name) or None for name in names))
    element, factors = ELEMENTS[dtype], (ctypes.c_double * 2)(*scales)
    if stem == "tpa_append":
        return lambda stream: function(given, pointers, stream)
    if stem == "tpa_attention":
        return lambda stream: function(element, given, factors, pointers, workspace, stream)
    return lambda stream: function(element, given, pointers, workspace, stream)


def _array(stem: str, sizes: Mapping[str, int]) -> Any:
    names = {"tpa_append": APPEND_SIZES, "tpa_attention": SIZES, "tt_sparse_linear": TT_SIZES}[stem]
    return (ctypes.c_int64 * len(names))(*(sizes[name] for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the operators' kernels into the cache, for carrying them.")
    parser.add_argument("capability", help="compute capability without the dot: 90")
    for stem in STEMS:
        path = build(stem, parser.parse_args().capability)
        print(f"{path}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
