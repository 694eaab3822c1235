"""The operators' CUDA kernels on a GPU, beyond single calls of `tests/ops/test_parity.py`: repeated, captured, copying.

The same code runs here over a fake of CUDA and the kernels compiled for the CPU, so that a GPU's time is not spent on
finding out that a test is wrong.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edgekit.ops.registry import operator
from edgekit.ops.spec import Case, OpSpec
from tests import gpu_tools
from tests.gpu import launches
from tests.ops.backends import cuda as cuda_backend
from tests.ops.compare import assert_close, assert_rest_untouched, expected_outputs
from tests.plugins import device_kernels, device_library
from tests.plugins.device_kernels import Call, DeviceMemory
from tests.runtime.fake_cuda import FakeCudart
from tests.tools import lacking, no_nvcc

#: One of each kind of launch: several splits and merge, prefill, in place with NaN behind, static factors, all vector
#: widths of rows.
CHOSEN = [
    ("TPAAttention", "decode-131-published-shape"),
    ("TPAAttention", "in-place-verify-ragged"),
    ("TPAAttention", "prefill-70-ragged-poisoned"),
    ("TPAAttention", "variant-000-decode-131"),
    ("TPAAppend", "in-place-decode-65-of-131"),
    ("TPAAppend", "prefill-70"),
    ("TTSparseLinear", "decode-three-sequences"),
    ("TTSparseLinear", "base-of-3-beside-1"),
]
Arrays = dict[str, np.ndarray]


def case_named(operator_name: str, name: str) -> tuple[OpSpec, Case]:
    spec = operator(operator_name)
    return spec, next(case for case in spec.cases() if case.name == name)


@pytest.fixture(params=[pytest.param("real", marks=pytest.mark.gpu), "fake"])
def somewhere(request: pytest.FixtureRequest) -> str:
    """On the GPU, and over its fake."""
    if request.param == "fake":
        request.getfixturevalue("fake_gpu")
    elif (reason := gpu_tools.no_kernels()) is not None:
        pytest.skip(reason)
    return str(request.param)


@cache
def expected(operator_name: str, name: str, dtype: str) -> Arrays:
    spec, case = case_named(operator_name, name)
    return expected_outputs(spec, case, case.inputs(dtype))


def assert_right(operator_name: str, name: str, dtype: str, outputs: Arrays) -> None:
    spec, case = case_named(operator_name, name)
    wanted = expected(operator_name, name, dtype)
    assert list(outputs) == list(wanted)
    for output, array in outputs.items():
        assert_close(output, array, wanted[output], spec.tolerances[dtype])
    if case.in_place:
        assert_rest_untouched(spec, case.attributes, case.inputs(dtype), outputs)


@pytest.mark.usefixtures("somewhere")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("operator_name", "name"), CHOSEN, ids=[name for _, name in CHOSEN])
def test_the_launchers_own_number_of_splits(operator_name: str, name: str, dtype: str) -> None:
    spec, case = case_named(operator_name, name)
    outputs = device_kernels.run(spec.stem, case.attributes, case.inputs(dtype), in_place=case.in_place)
    assert_right(operator_name, name, dtype, outputs)


@pytest.mark.usefixtures("somewhere")
@pytest.mark.parametrize(("operator_name", "name"), [each for each in CHOSEN if each[1].startswith("in-place")])
def test_in_place_into_another_buffer(operator_name: str, name: str) -> None:
    """Where TensorRT does not alias, the launcher copies the past, unused slots too."""
    spec, case = case_named(operator_name, name)
    outputs = device_kernels.run(spec.stem, case.attributes, case.inputs("float16"), in_place=True, alias=False)
    assert_right(operator_name, name, "float16", outputs)


@pytest.mark.parametrize(("operator_name", "name"), CHOSEN, ids=[name for _, name in CHOSEN])
def test_the_same_bits_each_time(somewhere: str, operator_name: str, name: str) -> None:
    """A sum that depends on the order in which blocks happen to run, or a missing barrier, would show."""
    spec, case = case_named(operator_name, name)
    with DeviceMemory(gpu_tools.cuda()) as memory:
        call = Call(memory, spec.stem, case.attributes, case.inputs("float16"), in_place=case.in_place, splits=3)
        first: Arrays | None = None
        rounds = 8 if somewhere == "real" else 2
        for _ in range(rounds):
            for _ in range(rounds):
                call.enqueue()
            outputs = call.results()
            first = outputs if first is None else first
            for output, array in outputs.items():
                assert array.tobytes() == first[output].tobytes(), output
    assert first is not None
    assert_right(operator_name, name, "float16", first)


@pytest.mark.usefixtures("somewhere")
@pytest.mark.parametrize(("operator_name", "name"), CHOSEN, ids=[name for _, name in CHOSEN])
def test_captured_in_a_graph(operator_name: str, name: str) -> None:
    """As decoding replays it: the output is what the graph writes, not what the capture did."""
    spec, case = case_named(operator_name, name)
    cuda = gpu_tools.cuda()
    with DeviceMemory(cuda) as memory:
        call = Call(memory, spec.stem, case.attributes, case.inputs("float16"), in_place=case.in_place)
        call.enqueue()  # loads the kernels
        cuda.synchronize(memory.stream)
        output = next(iter(call.outputs))
        array = memory.get(call.outputs[output])
        fresh = call.outputs[output] == output
        with cuda.capturing(memory.stream) as captured:
            call.enqueue()
        if fresh:
            cuda.fill(memory.addresses[output], device_kernels.POISON, array.nbytes, memory.stream)
        for _ in range(2):
            cuda.launch(captured[0], memory.stream)
        outputs = call.results()
        cuda.destroy_graph(captured[0])
    assert_right(operator_name, name, "float16", outputs)


@pytest.mark.usefixtures("somewhere")
def test_what_is_written_behind_a_tensor_is_noticed() -> None:
    with DeviceMemory(gpu_tools.cuda()) as memory:
        memory.put("a", np.arange(5, dtype=np.float32))
        memory.check_guards()
        memory.cuda.fill(memory.addresses["a"] + 20, 0, 1, memory.stream)
        with pytest.raises(AssertionError, match="behind a"):
            memory.check_guards()


def test_memory_is_given_back(fake_gpu: FakeCudart) -> None:
    spec, case = case_named(*CHOSEN[0])
    device_kernels.run(spec.stem, case.attributes, case.inputs("float32"), in_place=False)
    assert not fake_gpu.live
    assert not fake_gpu.streams


def test_every_case_of_every_operator_reaches_the_kernels(fake_gpu: FakeCudart) -> None:
    """What the parity backend `cuda` does on a GPU, over the fake."""
    for name in ("TPAAppend", "TTSparseLinear", "TPAAttention"):
        spec = operator(name)
        for case in spec.cases():
            outputs = cuda_backend.run(spec, dict(case.attributes), case.inputs("float32"), case.in_place)
            assert list(outputs) == [operand.name for operand in spec.active_outputs(case.attributes)]
            assert_right(name, case.name, "float32", outputs)


@pytest.fixture(scope="module")
def kernels() -> device_library.Kernels:
    """Compiled for an architecture that need not be here."""
    if (reason := no_nvcc()) is not None:
        lacking(reason)
    return device_library.Kernels("90")


LINEAR = {"tokens": 1, "inputs": 64, "outputs": 32, "rank": 4, "entries": 4, "residual": 1, "group_kept": 2}
LINEAR |= {"factor_bits": 4, "factor_block": 64, "value_bits": 8, "value_block": 64}
LINEAR |= {"base_bits": 0, "base_block": 64}


def test_a_launch_without_a_gpu_returns_an_error(kernels: device_library.Kernels) -> None:
    """The library loads and its launcher runs up to the GPU, whose absence comes back as a number."""
    if gpu_tools.no_gpu() is None:
        pytest.skip("there is a GPU")
    assert kernels.launch("tt_sparse_linear", "float16", LINEAR, {}, stream=0) in (35, 100)


@pytest.mark.parametrize(
    ("sizes", "dtype", "said"),
    [
        (LINEAR, "float16", None),
        (LINEAR | {"entries": 0}, "float16", "entries without a residual, or none of one"),
        (LINEAR | {"inputs": 65537}, "float32", "columns of 16 bits do not reach all inputs"),
        (LINEAR, "float64", "the element type is not float32, float16 or bfloat16"),
    ],
)
def test_refusals_come_through(
    kernels: device_library.Kernels, sizes: dict[str, int], dtype: str, said: str | None
) -> None:
    assert kernels.problem("tt_sparse_linear", dtype, sizes) == said
    assert kernels.workspace_bytes("tt_sparse_linear", "float16", LINEAR) == 1 * 4 * 4
    # The base's sums beside x A^T, but where they are the outputs.
    base = LINEAR | {"base_bits": 3}
    assert kernels.workspace_bytes("tt_sparse_linear", "float16", base) == 1 * (4 + 32) * 4
    alone = base | {"rank": 0, "entries": 0, "residual": 0, "factor_bits": 0, "value_bits": 0}
    assert kernels.workspace_bytes("tt_sparse_linear", "float16", alone) == 0


def test_an_operand_that_the_entry_does_not_know_is_refused(kernels: device_library.Kernels) -> None:
    with pytest.raises(AssertionError, match="weights"):
        kernels.launch("tt_sparse_linear", "float16", LINEAR, {"weights": 1}, stream=0)


def test_a_kernel_that_does_not_compile_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if (reason := no_nvcc()) is not None:
        lacking(reason)
    broken = tmp_path / "device_test.cpp"
    broken.write_text("this is no program\n")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(device_library, "sources", lambda stem: [broken])
    with pytest.raises(AssertionError, match="error"):
        device_library.build("tpa_append", "90")
    assert list((tmp_path / "kernels_on_device").iterdir()) == []


def test_libraries_are_found_where_there_is_no_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("tests.tools.nvcc", lambda: None)
    assert "no kernels compiled for compute capability 90 in the cache, and nvcc is neither" in (
        device_library.missing_library("90") or ""
    )
    for stem in device_library.STEMS:
        path = device_library.library_path(stem, "90")
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert device_library.missing_library("90") is None
    assert "90" not in (device_library.missing_library("87") or "")


def test_launches_for_the_sanitizer_run(fake_gpu: FakeCudart) -> None:
    """Every chosen case exists, and runs without guards."""
    names = [name for chosen in launches.CHOSEN.values() for name in chosen]
    assert len(set(names)) == len(names)
    expected = 2 * len(launches.CHOSEN["TPAAttention"]) + len(launches.CHOSEN["TPAAppend"])
    assert launches.launch(["float16"], []) == expected + len(launches.CHOSEN["TTSparseLinear"])
    assert launches.launch(["float16"], ["prefill-19"]) == 1
    assert not fake_gpu.live
