"""The CUDA kernels of TPAAttention on the CPU, beyond the operator's cases: sizes, splits, workspace, refusals."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgekit.ops.specs.tpa_attention import SPEC
from tests.ops.compare import assert_close, assert_rest_untouched, expected_outputs
from tests.plugins import host_library
from tests.plugins.operands import Shape, case_of

pytestmark = pytest.mark.skipif(
    host_library.missing_compiler() is not None, reason=host_library.missing_compiler() or ""
)

CONSTANT = (0, 0, 0)
SHAPES = [
    Shape(47, 64, 64, (6, 2, 2), past=140),
    Shape(61, 64, 64, (6, 2, 2), past=100, free=9, padding=33),
    Shape(78, 64, 64, (6, 2, 2), past=40),
    Shape(9, 64, 64, (1, 3, 3), variant=CONSTANT, past=100),
    Shape(32, 128, 128, (1, 8, 8), variant=CONSTANT, past=40),
    Shape(5, 256, 256, (3, 2, 2), past=40),
    Shape(3, 96, 192, (3, 1, 2), past=70),
    Shape(4, 10, 66, (2, 3, 1), past=70, free=1),
    Shape(17, 8, 4, (5, 1, 9), past=70),
    Shape(3, 16, 8, (2, 33, 40), past=20),
]


def run(shape: Shape, dtype: str = "float64", **options: int) -> dict[str, np.ndarray]:
    case = case_of(shape)
    return host_library.tpa_attention(case.attributes, case.inputs(dtype), in_place=case.in_place, **options)


def sizes(shape: Shape) -> dict[str, int]:
    case = case_of(shape)
    return host_library.sizes_of(case.attributes, case.inputs("float32"), in_place=case.in_place)


def problem(changed: dict[str, int], element: str = "float16") -> str | None:
    found = host_library.library("tpa_attention").edgekit_tpa_attention_problem(
        host_library.ELEMENTS[element], host_library.size_array(changed)
    )
    return found.decode() if found else None


@pytest.mark.parametrize("fresh", [1, 11])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_beyond_one_tile(shape: Shape, fresh: int) -> None:
    """Several head groups, column groups, chunks of D, and ranks that leave four slots per tile."""
    shape = replace(shape, fresh=fresh)
    case = case_of(shape)
    for dtype in ("float64", "float16"):
        inputs = case.inputs(dtype)
        outputs = run(shape, dtype, splits=2)
        for name, expected in expected_outputs(SPEC, case, inputs).items():
            assert_close(f"{dtype} {name}", outputs[name], expected, SPEC.tolerances[dtype])
        if case.in_place:
            assert_rest_untouched(SPEC, case.attributes, inputs, outputs)


@pytest.mark.parametrize("padding", [0, 70, 129])
def test_the_number_of_splits_changes_nothing(padding: int) -> None:
    """More splits than tiles, and splits in which nothing is visible."""
    shape = Shape(7, 8, 6, (2, 2, 3), past=130, fresh=2, batch=2, padding=padding)
    whole = run(shape, splits=1)["output"]
    for splits in (2, 3, 5, 40):
        np.testing.assert_allclose(run(shape, splits=splits)["output"], whole, rtol=1e-12, atol=1e-13)


def test_the_launcher_splits_by_the_number_of_processors() -> None:
    shape = Shape(3, 4, 4, (1, 1, 1), past=1300)
    count = host_library.library("tpa_attention").edgekit_tpa_attention_splits

    def splits(shape: Shape, processors: int) -> int:
        return count(0, host_library.size_array(sizes(shape) | {"multiprocessors": processors}))

    assert splits(shape, 1) == 4  # four blocks on a multiprocessor
    assert splits(shape, 16) == 41  # 1301 slots are 41 tiles of 32
    assert splits(shape, 64) == 82  # of 16, as 41 would leave multiprocessors without work
    assert splits(shape, 132) == 163  # of 8
    assert splits(replace(shape, past=100), 132) == 13  # none are smaller
    assert splits(replace(shape, batch=4, fresh=8), 16) == 2
    assert splits(replace(shape, fresh=9), 132) == 0
    np.testing.assert_allclose(
        run(shape, multiprocessors=132)["output"], run(shape, splits=1)["output"], rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [SHAPES[index] for index in (0, 1, 4, 6, 7, 9)], ids=str)
def test_tiles_become_smaller_where_there_are_few(shape: Shape, dtype: str) -> None:
    """As one sequence has them on a large GPU: a split is a tile of 8 slots, or of 4 where ranks are large."""
    case = case_of(shape)
    inputs = case.inputs(dtype)
    outputs = run(shape, dtype, multiprocessors=132)
    for name, expected in expected_outputs(SPEC, case, inputs).items():
        assert_close(f"{dtype} {name}", outputs[name], expected, SPEC.tolerances[dtype])


def test_the_two_kernels_meet_at_eight_new_tokens() -> None:
    """Nine tokens take the prefill kernel; the same tokens in pieces take the other one."""
    shape = Shape(5, 8, 6, (2, 2, 3), past=0, fresh=9)
    case = case_of(shape)
    inputs = case.inputs("float64")
    whole = host_library.tpa_attention(case.attributes, inputs, in_place=False)
    caches = [f"past_{name}" for name in host_library.CACHES]
    pieces = []
    for first, last in ((0, 8), (8, 9)):
        piece = {
            n: x[:, first:last] if n in ("a_q", "b_q", "a_k", "b_k", "a_v", "b_v") else x for n, x in inputs.items()
        }
        piece["attention_mask"] = inputs["attention_mask"][:, :last]
        done = host_library.tpa_attention(case.attributes, piece, in_place=False)
        inputs |= {name: done[name.replace("past", "present")] for name in caches}
        pieces.append(done["output"])
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole["output"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("fresh", [1, 12])
def test_scores_far_beyond_what_exp_can_take(fresh: int) -> None:
    shape = Shape(5, 8, 6, (2, 2, 3), past=70, fresh=fresh)
    case = case_of(shape, spread=4000.0)
    inputs = case.inputs("float64")
    outputs = host_library.tpa_attention(case.attributes, inputs, in_place=False, splits=3)
    assert_close(
        "output", outputs["output"], expected_outputs(SPEC, case, inputs)["output"], SPEC.tolerances["float64"]
    )


@pytest.mark.parametrize("fresh", [1, 12])
def test_in_place_with_separate_buffers_copies_first(fresh: int) -> None:
    shape = Shape(5, 8, 6, (2, 2, 3), fresh=fresh, free=4, batch=2)
    case = case_of(shape)
    inputs = case.inputs("float32")
    shared = host_library.tpa_attention(case.attributes, inputs, in_place=True)
    apart = host_library.tpa_attention(case.attributes, inputs, in_place=True, alias=False)
    for name, array in shared.items():
        np.testing.assert_array_equal(apart[name], array)


VARIANTS = list(itertools.product((0, 1), repeat=3))


@pytest.mark.parametrize("dtype", host_library.ELEMENTS)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_tokens_beyond_the_rotary_table_become_nan(variant: tuple[int, int, int], dtype: str) -> None:
    """The tokens before are right, the others cannot pass for right: decode, its splits, prefill, grow, in place."""
    for fresh, past, free, splits in ((1, 70, 0, 0), (3, 140, 5, 2), (5, 0, 0, 0), (20, 70, 0, 0), (40, 3, 2, 0)):
        shape = Shape(5, 8, 6, (2, 2, 3), past=past, fresh=fresh, free=free, batch=2, variant=variant)
        case = case_of(shape)
        inputs = case.inputs(dtype)
        inside = fresh // 2
        rows = past + inside
        short = inputs | {name: inputs[name][:rows] for name in ("cos", "sin")}
        whole, cut = (
            host_library.tpa_attention(case.attributes, given, in_place=case.in_place, splits=splits)
            for given in (inputs, short)
        )
        assert np.isfinite(whole["output"].astype(float)).all()
        np.testing.assert_array_equal(cut["output"][:, :inside], whole["output"][:, :inside])
        assert np.isnan(cut["output"][:, inside:].astype(float)).all()
        # The cache shows it too: nothing later can use these keys.
        keys = cut["present_b_k"][:, past : past + fresh].astype(float)
        assert np.isnan(keys[:, inside:]).all()
        assert np.isfinite(keys[:, :inside]).all()


@pytest.mark.parametrize("fresh", [1, 12])
def test_a_mask_longer_than_the_rotary_table_is_fine_where_padding_makes_up_for_it(fresh: int) -> None:
    shape = Shape(3, 4, 4, (1, 1, 1), past=50, fresh=fresh, padding=30)
    case = case_of(shape)
    inputs = case.inputs("float64")
    short = inputs | {name: inputs[name][: 20 + fresh] for name in ("cos", "sin")}
    outputs = [
        host_library.tpa_attention(case.attributes, given, in_place=False)["output"] for given in (short, inputs)
    ]
    assert np.isfinite(outputs[0]).all()
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("fresh", [1, 12])
@pytest.mark.parametrize("frequency", [-1, 4, 5])
@pytest.mark.parametrize("variant", [(1, 1, 1), (0, 0, 0)], ids=str)
def test_a_frequency_that_is_no_column_becomes_nan(variant: tuple[int, int, int], frequency: int, fresh: int) -> None:
    """One that is far off, and that no memory is read there, is for test_memory.py."""
    shape = Shape(5, 8, 6, (2, 2, 3), past=20, fresh=fresh, variant=variant)
    case = case_of(shape)
    inputs = case.inputs("float32")
    assert inputs["cos"].shape[1] == 4
    inputs["frequencies"] = np.array([0, 1, frequency, 3])
    outputs = host_library.tpa_attention(case.attributes, inputs, in_place=False)
    assert np.isnan(outputs["output"]).all()
    keys = outputs["present_b_k"][:, 20:]
    assert np.isnan(keys[..., [2, 6]]).all()
    assert np.isfinite(keys[..., [0, 1, 3, 4, 5, 7]]).all()


def test_workspace_never_shrinks_as_shapes_grow() -> None:
    """A TensorRT profile is given the workspace of its largest shapes."""
    workspace = host_library.library("tpa_attention").edgekit_tpa_attention_workspace

    def needed(**changed: int) -> int:
        return workspace(0, host_library.size_array(base | changed))

    base = sizes(Shape(47, 64, 64, (6, 2, 2))) | {"multiprocessors": 132}
    largest = needed(batch=8, fresh=512, total=4096)
    for batch in (1, 3, 8):
        for fresh in (1, 2, 7, 8, 9, 512):
            for total in (512, 700, 4096):
                assert needed(batch=batch, fresh=fresh, total=total) <= largest
    assert needed(multiprocessors=16) <= needed()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"heads": 0}, "length 0"),
        ({"fresh": 0}, "length 0"),
        ({"key_size": 7}, "even"),
        ({"rotary_rows": 0}, "rotary"),
        ({"past_slots": 69}, "past has neither"),
        ({"present_slots": 70}, "present has neither"),
        ({"batch": 70000}, "one launch"),
        ({"key_size": 1024}, "shared memory"),
        ({"rank_v": 1000}, "shared memory"),
    ],
)
def test_refusals(changed: dict[str, int], words: str) -> None:
    fine = sizes(Shape(47, 64, 64, (6, 2, 2)))
    assert problem(fine) is None
    found = problem(fine | changed)
    assert found is not None
    assert words in found
    status = host_library.library("tpa_attention").edgekit_tpa_attention(
        host_library.ELEMENTS["float16"],
        host_library.size_array(fine | changed),
        (ctypes.c_double * 2)(),
        (ctypes.c_void_p * 19)(),
    )
    assert status == 1


@pytest.mark.parametrize(("key_size", "rank"), [(64, 24), (128, 16), (256, 8)])
def test_documented_limits_are_within_shared_memory(key_size: int, rank: int) -> None:
    for variant in ((1, 1, 1), CONSTANT):
        for element in ("float32", "float16"):
            fine = sizes(Shape(64, key_size, key_size, (rank, rank, rank), past=0, variant=variant))
            assert problem(fine, element) is None
