"""The native files of an operator: what each is, and which there must be. Needs no torch."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path

#: What a file of `plugins/<stem>/` is, by its name; braces take what the asterisk stands for.
ROLES = (
    ("generated.h", "generated header"),
    ("launch.h", "interface of the CUDA kernel"),
    ("launch*.cpp", "launcher of the CUDA kernel"),
    ("kernel.cuh", "CUDA kernel"),
    ("kernel_*.cuh", "CUDA kernel, {}"),
    ("kernel.cu", "CUDA kernel, compiled"),
    ("kernel_*.cu", "CUDA kernel, compiled for {}"),
    ("host_test.cpp", "CUDA kernel on the CPU, for tests"),
    ("device_test.cpp", "CUDA kernel on a GPU, for tests"),
    ("test_params.h", "sizes and pointers from plain arrays, for tests"),
    ("plugin.cpp", "TensorRT plugin"),
    ("cpu.cpp", "CPU kernel"),
    ("cpu_*.h", "CPU kernel, {}"),
    ("README.md", "documentation of the native code"),
)
#: Of every operator; README.md besides, where the sources are not an installed copy.
REQUIRED = ("generated.h", "launch.h", "kernel.cuh", "host_test.cpp", "device_test.cpp", "plugin.cpp", "cpu.cpp")
#: Element types on a GPU: where one has a source of its own, all have.
ELEMENTS = ("float32", "float16", "bfloat16")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def role(path: Path) -> str:
    """What a native file is, in words; one of `common/` is a shared header."""
    if path.parent.name == "common":
        return "shared numerics" if path.name == "core.h" else f"shared header {path.name}"
    for pattern, words in ROLES:
        if fnmatch(path.name, pattern):
            before, _, after = pattern.partition("*")
            return words.format(path.name.removeprefix(before).removesuffix(after))
    return f"native source {path.name}"


def native_files(stem: str, plugins: Path) -> list[Path]:
    """All that is in the operator's folder, and all that must be, there or not: by name, or because it is included."""
    folder = plugins / stem
    found = [folder / name for name in REQUIRED]
    if (plugins / "README.md").is_file():
        found.append(folder / "README.md")
    kernels = {path.name for path in folder.glob("kernel*.cu")}
    by_element = [f"kernel_{element}.cu" for element in ELEMENTS]
    found += [folder / name for name in (by_element if kernels & set(by_element) else ["kernel.cu"])]
    found += sorted(path for path in folder.glob("*") if path.is_file())
    found = list(dict.fromkeys(found))
    for path in found:  # grows while it is walked
        found += [included for included in _included(path) if included not in found]
    return sorted(found, key=lambda path: (path.parent.name == "common", _rank(path), path.name))


def _included(path: Path) -> list[Path]:
    if not path.is_file() or path.suffix == ".md":
        return []
    names = _INCLUDE.findall(path.read_text(encoding="utf-8"))
    return list(dict.fromkeys(Path(os.path.normpath(path.parent / name)) for name in names))


def _rank(path: Path) -> int:
    matching = (index for index, (pattern, _) in enumerate(ROLES) if fnmatch(path.name, pattern))
    return next(matching, len(ROLES))
