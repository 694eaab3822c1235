"""edgekit::TPAAttention by the native CPU library, against an oracle that shares nothing with it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from tests.native.oracle import Sizes, attributes_of, inputs_of, tpa_attention
from tests.ops.backends import onnx_native

SPEC = operator("TPAAttention")
#: Largest error in units of the largest expected magnitude, and largest 1 - cosine.
TOLERANCES = {"float64": (1e-12, 1e-14), "float32": (5e-6, 1e-11), "float16": (1e-3, 1e-6), "bfloat16": (8e-3, 1e-4)}

SIZES = {
    "one-token": Sizes(past=0),
    "block-boundary": Sizes(past=63),
    "47-heads-splits": Sizes(past=300, heads=47, key_size=66, value_size=61, rank_q=6, rank_v=3, columns=33),
    "61-heads-verify": Sizes(past=130, new=5, batch=3, heads=61, key_size=10, value_size=7, rank_q=1),
    "prefill": Sizes(past=0, new=70, heads=5, key_size=6, value_size=64, rank_k=3, columns=3),
    "prefill-after-past": Sizes(past=37, new=35, batch=2, heads=9, key_size=10, value_size=6, columns=5),
    "long-query-rank": Sizes(past=150, rank_q=20),
    "multi-query": Sizes(past=70, heads=6, rank_k=1, rank_v=1),
    "in-place": Sizes(past=301, new=3, batch=2, capacity=400),
    "in-place-full": Sizes(past=97, new=31, capacity=128),
}
VARIANTS = list(itertools.product((0, 1), repeat=3))
#: Conversion does not depend on the variant: the 16-bit types take some of them.
SOME_VARIANTS = [(1, 1, 1), (0, 0, 1), (0, 1, 0)]

pytestmark = pytest.mark.usefixtures("library")


def ragged(s: Sizes) -> np.ndarray:
    """Sequence 0 has padding to the left, 1 holes everywhere, the last nothing but padding."""
    mask = np.ones((s.batch, s.total), np.int64)
    if s.batch > 1:
        mask[0, : s.past // 2] = 0
        mask[1] = np.random.default_rng(0).random(s.total) < 0.6
    if s.batch > 2:
        mask[-1] = 0
    return mask


def run(attributes: dict[str, Any], inputs: dict[str, np.ndarray], s: Sizes, threads: int = 2) -> dict[str, np.ndarray]:
    return onnx_native.run(SPEC, attributes, inputs, s.capacity is not None, threads)


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str, real: np.ndarray) -> None:
    """Presents bit for bit, keys to rounding; the output by largest error and cosine. NaN where and only where due."""
    maximum, cosine = TOLERANCES[dtype]
    assert np.isfinite(found["output"].astype(np.float64)[real]).all()
    for name, want in expected.items():
        got = found[name].astype(np.float64)
        want = want.astype(np.float64)
        assert got.shape == want.shape
        assert (np.isnan(got) == np.isnan(want)).all(), name
        filled = ~np.isnan(want)
        got, want = got[filled], want[filled]
        if not want.size:
            continue
        if name not in ("output", "present_b_k"):
            assert (got == want).all(), name
        assert np.abs(got - want).max() <= maximum * np.abs(want).max(), name
        assert 1 - got @ want / np.sqrt((got @ got) * (want @ want)) <= cosine, name


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", SIZES)
def test_all_variants_equal_the_oracle(name: str, dtype: str) -> None:
    s = SIZES[name]
    mask = ragged(s)
    for variant in VARIANTS if dtype.startswith("float") and dtype != "float16" else SOME_VARIANTS:
        attributes = attributes_of(s, *variant)
        inputs = inputs_of(s, attributes, dtype, mask)
        check(run(attributes, inputs, s), tpa_attention(attributes, inputs), dtype, mask[:, s.past :] != 0)


@pytest.mark.parametrize("name", SIZES)
def test_the_number_of_threads_does_not_matter(name: str) -> None:
    s = SIZES[name]
    attributes = attributes_of(s)
    inputs = inputs_of(s, attributes, "float32", ragged(s))
    one, two, four = (run(attributes, inputs, s, threads) for threads in (1, 2, 4))
    for output, value in one.items():
        np.testing.assert_array_equal(value, two[output])
        np.testing.assert_array_equal(value, four[output])


def test_a_static_factor_with_zeros_is_grouped_query_attention() -> None:
    s = Sizes(past=200, heads=9, key_size=16, value_size=16, rank_k=3, rank_v=3, columns=8)
    attributes = attributes_of(s, 0, 0, 0) | {"scale": 0.25, "value_scale": 1.0}
    inputs = inputs_of(s, attributes, "float64")
    inputs["a_k"] = inputs["a_v"] = np.kron(np.eye(3), np.ones(3))
    found = run(attributes, inputs, s)
    check(found, tpa_attention(attributes, inputs), "float64", np.ones((1, 1), bool))
    keys, values = (np.repeat(found[f"present_b_{x}"][0], 3, 1) for x in "kv")
    query = inputs["b_q"][0, 0]
    angle = s.past, inputs["frequencies"]
    half = query[:, :8] + 1j * query[:, 8:]
    turned = half * (inputs["cos"][angle] + 1j * inputs["sin"][angle])
    query = np.concatenate((turned.real, turned.imag), -1)
    weights = np.exp(0.25 * np.einsum("hd,mhd->hm", query, keys))
    expected = np.einsum("hm,mhe->he", weights / weights.sum(-1, keepdims=True), values)
    np.testing.assert_allclose(found["output"][0, 0], expected, rtol=0, atol=1e-12)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    """Scores up to several thousand: only the differences matter."""
    s = Sizes(past=300, heads=5)
    attributes = attributes_of(s) | {"scale": 100.0}
    inputs = inputs_of(s, attributes, "float32")
    check(run(attributes, inputs, s), tpa_attention(attributes, inputs), "float16", np.ones((1, 1), bool))


def test_prefill_in_parts_is_prefill() -> None:
    """130 tokens at once, and 64 + 65 + 1 through the grown cache."""
    s = Sizes(past=0, new=130, heads=7, positions=130)
    attributes = attributes_of(s)
    inputs = inputs_of(s, attributes, "float64")
    whole = run(attributes, inputs, s)["output"]
    parts, first = [], 0
    cache = {name: value for name, value in inputs.items() if name.startswith("past_")}
    for count in (64, 65, 1):
        piece = {
            n: v[:, first : first + count] for n, v in inputs.items() if n in ("a_q", "b_q", "a_k", "b_k", "a_v", "b_v")
        }
        piece |= cache | {n: inputs[n] for n in ("cos", "sin", "frequencies")}
        piece["attention_mask"] = inputs["attention_mask"][:, : first + count]
        ordered = {operand.name: piece[operand.name] for operand in SPEC.active_inputs(attributes)}
        found = run(attributes, ordered, s)
        cache = {f"past_{name}": found[f"present_{name}"] for name in ("a_k", "b_k", "a_v", "b_v")}
        parts.append(found["output"])
        first += count
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-13)


def test_in_place_writes_nothing_but_the_new_rows() -> None:
    s = Sizes(past=70, new=2, batch=2, capacity=90)
    attributes = attributes_of(s)
    inputs = inputs_of(s, attributes, "float32")
    found = run(attributes, inputs, s)
    for name in ("a_k", "b_k", "a_v", "b_v"):
        before, after = inputs[f"past_{name}"], found[f"present_{name}"]
        assert after.shape[1] == 90
        np.testing.assert_array_equal(after[:, :70], before[:, :70])
        assert np.isnan(after[:, 72:]).all()
        assert not np.isnan(after[:, 70:72]).any()


def test_a_buffer_that_is_not_shared_is_copied() -> None:
    """Past longer than T, output bound elsewhere: the present is a copy, the past stays as it was."""
    s = Sizes(past=70, new=2, capacity=90)
    attributes = attributes_of(s)
    inputs = inputs_of(s, attributes, "float32")
    kept = {name: value.copy() for name, value in inputs.items()}
    found = onnx_native.run(SPEC, attributes, inputs, in_place=False)
    check(found, tpa_attention(attributes, kept), "float32", np.ones((1, 2), bool))
    for name, value in kept.items():
        np.testing.assert_array_equal(inputs[name], value)


def test_a_long_cache_is_copied_whole() -> None:
    """Growing copies in pieces: one longer than several of them."""
    s = Sizes(past=9000, batch=2, heads=4)
    attributes = attributes_of(s)
    inputs = inputs_of(s, attributes, "float32")
    found = run(attributes, inputs, s)
    for name in ("a_k", "b_k", "a_v", "b_v"):
        np.testing.assert_array_equal(found[f"present_{name}"][:, :9000], inputs[f"past_{name}"])


def test_an_empty_batch() -> None:
    s = Sizes(batch=0, past=3)
    attributes = attributes_of(s)
    found = run(attributes, inputs_of(s, attributes, "float32"), s)
    assert found["output"].shape == (0, 1, 3, 8)
    assert found["present_b_k"].shape == (0, 4, 2, 8)


def test_the_library_is_the_one_under_test(library: Path) -> None:
    assert onnx_native.library() == library
