"""Registers and spills of the CUDA kernels, which need nvcc but no GPU, and docs/kernels.md."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.plugins.host_library import missing_compiler
from tests.tools import no_nvcc

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kernel-resources"
needs_nvcc = pytest.mark.skipif(no_nvcc() is not None, reason=no_nvcc() or "")
needs_compiler = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("kernel_resources", str(SCRIPT))
    spec = importlib.util.spec_from_loader("kernel_resources", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_resources"] = module  # its dataclasses look themselves up
    loader.exec_module(module)
    return module


def test_spills_are_read_from_the_report(script: ModuleType) -> None:
    report = (
        "ptxas info    : Compiling entry function 'void edgekit::some<edgekit::float16, 6>(int)' for 'sm_87'\n"
        "    24 bytes stack frame, 28 bytes spill stores, 104 bytes spill loads\n"
        "ptxas info    : Used 128 registers, used 1 barriers, 512 bytes smem, 624 bytes cmem[0]\n"
    )
    assert script.parsed(report) == {"some<float16, 6>": script.Resources(128, 132, 512)}


@needs_nvcc
def test_no_kernel_spills_on_orin_and_hopper(script: ModuleType) -> None:
    """Every instance, and so every shape of the cases, which all run on these instances."""
    taken = script.measured((87, 90))
    assert {name.split("<")[0] for name in taken} == {
        "tpa_append_kernel",
        "tpa_decode_kernel",
        "tpa_merge_kernel",
        "tpa_prefill_kernel",
        "append_rows_kernel",
        "tt_base_kernel",
        "tt_project_kernel",
        "tt_sparse_kernel",
        "tt_tiles_kernel",
    }
    assert len(taken) == 3 * (1 + 6 + 1 + 2) + 4 + 3 * (2 + 3 * 2) + 2 * 3 * 2
    spilling = [(name, a) for name, by_arch in taken.items() for a, r in by_arch.items() if r.spills]
    assert not spilling
    # Four blocks of 128 threads on a multiprocessor of 65,536 registers.
    assert max(r.registers for by_arch in taken.values() for r in by_arch.values()) <= 128


@needs_compiler
def test_every_shape_of_the_cases_stays_within_48_kib(script: ModuleType) -> None:
    for shape in (*script.PUBLISHED, *script.case_shapes()):
        for element in ("float32", "float16", "bfloat16"):
            taken = script.plan(shape, element)
            assert max(taken["shared"], taken["prefill_shared"]) <= 48 << 10, shape


@needs_compiler
def test_bytes_of_a_decoded_token(script: ModuleType) -> None:
    medium = next(shape for shape in script.PUBLISHED if shape.name == "T6 medium")
    # (R_K + R_V)(H + D) = 444 numbers per slot, and 8 bytes of the mask.
    assert script.minimum_bytes(medium, 4097, 2) - script.minimum_bytes(medium, 4096, 2) == 2 * 444 + 8
    for shape in (*script.PUBLISHED, *script.case_shapes()):
        for depth in (1, 100, 4096):
            assert script.moved_bytes(shape, depth, 2, 16) >= script.minimum_bytes(shape, depth, 2)
    # One split, one group: the mask, the rotated query and the new row are each moved once more.
    single = script.moved_bytes(medium, 8, 2, 16) - script.minimum_bytes(medium, 8, 2)
    assert single == 8 * 8 + 2 * 4 * 6 * 64 + 2 * 444


@needs_compiler
def test_what_the_page_says_of_tiles_and_bytes_is_what_the_launcher_says(script: ModuleType) -> None:
    """All of the page but what nvcc has to tell, which is the slow test's."""
    page = script.PAGE.read_text()
    nvcc, kernels = re.search(r"with nvcc ([\d.]+)", page), re.search(r"^\| kernel \|.*\n(\|.*\n)+", page, re.MULTILINE)
    assert nvcc
    assert kernels
    assert page == script.page(nvcc[1], kernels[0].rstrip()), "run scripts/kernel-resources --write"


@pytest.mark.slow
@needs_nvcc
@needs_compiler
def test_the_page_is_what_the_script_makes(script: ModuleType) -> None:
    page = script.PAGE.read_text()
    made_with = re.search(r"with nvcc ([\d.]+)", page)
    assert made_with
    if made_with[1] != script.compiler():
        pytest.skip(f"docs/kernels.md was made with nvcc {made_with[1]}, this is {script.compiler()}")
    assert page == script.page(script.compiler(), script.kernel_table()), "run scripts/kernel-resources --write"
