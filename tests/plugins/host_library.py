"""CUDA source of an operator compiled for the CPU by `plugins/common/cuda_on_host.h`, and called with NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.files import cache_dir

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
ELEMENTS = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}
FLAGS = ("-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DEDGEKIT_CUDA_ON_HOST")
#: Sizes in the order of host_test.cpp.
SIZES = (
    *("batch", "fresh", "total", "past_slots", "present_slots", "heads", "key_size", "value_size"),
    *("rank_q", "rank_k", "rank_v", "rotary_rows", "rotary_columns", "multiprocessors", "splits"),
    *("factored_query", "contextual_key", "contextual_value"),
)
TENSORS = (
    *("a_q", "b_q", "a_k", "b_k", "a_v", "b_v", "past_a_k", "past_b_k", "past_a_v", "past_b_v", "cos", "sin"),
    *("attention_mask", "frequencies", "output", "present_a_k", "present_b_k", "present_a_v", "present_b_v"),
)
CACHES = ("a_k", "b_k", "a_v", "b_v")


@functools.cache
def missing_compiler() -> str | None:
    """Why no library can be built, or None."""
    if shutil.which("g++") is None:
        return "no g++"
    try:
        probe = subprocess.run(
            ["g++", "-std=c++20", "-x", "c++", "-fsyntax-only", "-"],
            input="#include <barrier>\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
    except OSError as error:
        return f"g++ does not run: {error}"
    return None if probe.returncode == 0 else "g++ knows no C++20 <barrier>"


@functools.cache
def library(stem: str) -> ctypes.CDLL:
    """The operator's kernels. Kept in the cache, by a digest of the sources and flags."""
    source = PLUGINS / stem / "host_test.cpp"
    files = [path for folder in (PLUGINS / stem, PLUGINS / "common") for path in sorted(folder.glob("*"))]
    content = b"".join(path.read_bytes() for path in files if path.is_file())
    digest = hashlib.sha256(content + " ".join(FLAGS).encode()).hexdigest()[:16]
    target = cache_dir() / "cuda_on_host" / f"{stem}-{digest}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        compile_source(source, target, ("-shared", "-fPIC"))
    loaded = ctypes.CDLL(str(target))
    if stem == "tpa_attention":
        loaded.edgekit_tpa_attention_problem.restype = ctypes.c_char_p
        loaded.edgekit_tpa_attention_workspace.restype = ctypes.c_size_t
    if stem == "tt_sparse_linear":
        loaded.edgekit_tt_sparse_linear_problem.restype = ctypes.c_char_p
    return loaded


def compile_source(source: Path, target: Path, flags: tuple[str, ...]) -> None:
    """Compile for the CPU; AssertionError with the compiler's words where it fails."""
    part = target.with_name(f"{target.name}.{os.getpid()}")
    done = subprocess.run(
        ["g++", *FLAGS, *flags, str(source), "-o", str(part)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    os.replace(part, target)


def tpa_attention(
    attributes: dict[str, Any],
    inputs: dict[str, np.ndarray],
    *,
    in_place: bool,
    multiprocessors: int = 1,
    splits: int = 0,
    alias: bool = True,
) -> dict[str, np.ndarray]:
    """Run the kernels of TPAAttention.

    Args:
        attributes: of the node.
        inputs: by name; in place, pasts have at least T slots and the presents are copies of them.
        multiprocessors: of the pretended GPU; more of them make more splits.
        splits: number of splits; 0 for the launcher's choice.
        alias: in place, past and present are one buffer, as on a device; else the launcher has to copy.
    """
    dtype = inputs["b_v"].dtype
    arrays = {name: np.array(value, order="C", copy=True) for name, value in inputs.items()}
    sizes = sizes_of(attributes, arrays, in_place=in_place) | {"multiprocessors": multiprocessors, "splits": splits}
    outputs = {"output": np.empty((sizes["batch"], sizes["fresh"], sizes["heads"], sizes["value_size"]), dtype)}
    for name in CACHES:
        past = arrays.get(f"past_{name}")
        if past is None:
            continue
        if in_place and alias:
            outputs[f"present_{name}"] = past
        else:
            present = np.empty((past.shape[0], sizes["present_slots"], *past.shape[2:]), dtype)
            outputs[f"present_{name}"] = _poison(present)
    _poison(outputs["output"])
    everything = arrays | outputs
    pointers = [everything[name].ctypes.data if name in everything else None for name in TENSORS]
    status = library("tpa_attention").edgekit_tpa_attention(
        ELEMENTS[dtype.name],
        size_array(sizes),
        (ctypes.c_double * 2)(attributes["scale"], attributes["value_scale"]),
        (ctypes.c_void_p * len(TENSORS))(*pointers),
    )
    assert status == 0, f"launch returned {status}"
    return outputs


def sizes_of(attributes: dict[str, Any], inputs: dict[str, np.ndarray], *, in_place: bool) -> dict[str, int]:
    """The sizes of TpaAttentionParams by name."""
    batch, fresh, rank_v, value_size = inputs["b_v"].shape
    total = inputs["attention_mask"].shape[1]
    past_slots = inputs["past_b_v"].shape[1]
    return {
        "batch": batch,
        "fresh": fresh,
        "total": total,
        "past_slots": past_slots,
        "present_slots": past_slots if in_place else total,
        "heads": inputs["a_v"].shape[-1],
        "key_size": inputs["b_k"].shape[3],
        "value_size": value_size,
        "rank_q": inputs["a_q"].shape[2] if "a_q" in inputs else 0,
        "rank_k": inputs["b_k"].shape[2],
        "rank_v": rank_v,
        "rotary_rows": inputs["cos"].shape[0],
        "rotary_columns": inputs["cos"].shape[1],
        "multiprocessors": 1,
        "splits": 0,
        "factored_query": attributes["factored_query"],
        "contextual_key": attributes["contextual_key"],
        "contextual_value": attributes["contextual_value"],
    }


def size_array(sizes: dict[str, int]) -> Any:
    """Sizes in the order of host_test.cpp."""
    return (ctypes.c_int64 * len(SIZES))(*(sizes[name] for name in SIZES))


def tpa_append(inputs: dict[str, np.ndarray], *, in_place: bool, alias: bool = True) -> np.ndarray:
    """Run the kernel of TPAAppend; in place, on a copy of `past`."""
    past, new = (np.array(inputs[name], order="C", copy=True) for name in ("past", "new"))
    total = inputs["attention_mask"].shape[1]
    if in_place and alias:
        present = past
    else:
        slots = past.shape[1] if in_place else total
        present = _poison(np.empty((past.shape[0], slots, *past.shape[2:]), past.dtype))
    row_bytes = new.shape[2] * new.shape[3] * new.itemsize
    sizes = (ctypes.c_int64 * 6)(new.shape[0], new.shape[1], total, past.shape[1], present.shape[1], row_bytes)
    tensors = (ctypes.c_void_p * 3)(past.ctypes.data, new.ctypes.data, present.ctypes.data)
    status = library("tpa_append").edgekit_tpa_append(sizes, tensors)
    assert status == 0, f"launch returned {status}"
    return present


#: Of TTSparseLinear, in the order of its test_params.h.
TT_SIZES = (
    *("tokens", "inputs", "outputs", "rank", "entries", "residual", "group_kept"),
    *("factor_bits", "factor_block", "value_bits", "value_block", "base_bits", "base_block"),
)
TT_TENSORS = (
    *("x", "a", "a_scales", "b", "b_scales", "values", "value_scales", "starts", "positions"),
    *("base", "base_scales", "base_zeros", "bias", "y"),
)


def tt_sizes_of(attributes: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of TtSparseLinearParams by name."""
    batch, tokens, width = inputs["x"].shape
    sizes = {"tokens": batch * tokens, "inputs": width, "outputs": attributes["out_features"]}
    return sizes | {name: attributes[name] for name in TT_SIZES if name not in sizes}


def tt_sparse_linear(attributes: dict[str, Any], inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Run the kernels of TTSparseLinear. What follows an operand in memory is NaN."""
    arrays = {name: _followed_by_nan(value) for name, value in inputs.items()}
    given = tt_sizes_of(attributes, arrays)
    arrays["y"] = _poison(np.empty((*arrays["x"].shape[:2], given["outputs"]), arrays["x"].dtype))
    sizes = (ctypes.c_int64 * len(TT_SIZES))(*(given[name] for name in TT_SIZES))
    pointers = (ctypes.c_void_p * len(TT_TENSORS))(
        *(arrays[name].ctypes.data if name in arrays else None for name in TT_TENSORS)
    )
    element = ELEMENTS[arrays["x"].dtype.name]
    status = library("tt_sparse_linear").edgekit_tt_sparse_linear(element, sizes, pointers)
    assert status == 0, f"launch returned {status}"
    return arrays["y"]


def _followed_by_nan(array: np.ndarray) -> np.ndarray:
    """A copy, aligned as device memory is, before bytes of 0xff."""
    memory = np.full(array.nbytes + 192, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _poison(array: np.ndarray) -> np.ndarray:
    """Fill with NaN, so that what no kernel writes shows."""
    array.view(np.uint8)[...] = 0xFF
    return array
