"""Engines with edgekit's plugins, built by TensorRT-RTX on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.build.conftest import Build
from tests.build.graphs import CAPACITY, SIZES, one_operator

DTYPES = ("float16", "bfloat16", "float32")
H, D, E, R_K, R_V = (SIZES[letter] for letter in ("H", "D", "E", "R_K", "R_V"))


@pytest.mark.parametrize("in_place", [False, True], ids=["grow", "in_place"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_is_one_plugin_layer(build: Build, library: Path, dtype: str, in_place: bool) -> None:
    model = one_operator("TPAAttention", dtype, in_place=in_place)
    built = build(model, [library], expected={"TPAAttention": 1}, capabilities=("89", "120"))
    assert built.get("layers") == {"PLUGIN_V3": 1}, built
    assert built["plugins"] == {"TPAAttention": 1}
    assert Path(built["path"]).stat().st_size == built["bytes"] > 1000
    length = CAPACITY if in_place else -1
    assert [(o["name"], o["dtype"], o["shape"]) for o in built["outputs"]] == [
        ("output", dtype, [-1, -1, H, E]),
        ("present_a_k", dtype, [-1, length, R_K, H]),
        ("present_b_k", dtype, [-1, length, R_K, D]),
        ("present_a_v", dtype, [-1, length, R_V, H]),
        ("present_b_v", dtype, [-1, length, R_V, E]),
    ]


@pytest.mark.parametrize("in_place", [False, True], ids=["grow", "in_place"])
def test_append_is_one_plugin_layer(build: Build, library: Path, in_place: bool) -> None:
    model = one_operator("TPAAppend", "float16", in_place=in_place)
    built = build(model, [library], expected={"TPAAppend": 1})
    assert built.get("layers") == {"PLUGIN_V3": 1}, built
    assert built["outputs"][0]["shape"] == [-1, CAPACITY if in_place else -1, SIZES["R"], SIZES["W"]]


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"factored_query": 0}, ["output", "present_a_k", "present_b_k", "present_a_v", "present_b_v"]),
        ({"contextual_key": 0}, ["output", "present_b_k", "present_a_v", "present_b_v"]),
        ({"contextual_value": 0}, ["output", "present_a_k", "present_b_k", "present_b_v"]),
        ({"factored_query": 0, "contextual_key": 0, "contextual_value": 0}, ["output", "present_b_k", "present_b_v"]),
    ],
    ids=["dense_query", "static_key", "static_value", "all_static"],
)
def test_variants_have_their_operands(
    build: Build, library: Path, attributes: dict[str, int], names: list[str]
) -> None:
    sizes = {"B": 2, "S": 4, "P": 9, "T": 13}
    built = build(one_operator("TPAAttention", "float16", attributes=attributes, sizes=sizes), [library])
    assert built.get("layers") == {"PLUGIN_V3": 1}, built
    shapes = {o["name"]: o["shape"] for o in built["outputs"]}
    assert list(shapes) == names
    assert shapes["output"] == [2, 4, H, E]
    assert shapes["present_b_k"] == [2, 13, R_K, D]


@pytest.mark.parametrize("name", ["TPAAttention", "TPAAppend"])
def test_without_the_library_the_function_body_runs(build: Build, name: str) -> None:
    built = build(one_operator(name, "float16"))
    assert "layers" in built, built
    assert built["plugins"] == {}
    assert "PLUGIN_V3" not in built["layers"]
    expected = "MATRIX_MULTIPLY" if name == "TPAAttention" else "CONCATENATION"
    assert built["layers"][expected] >= 1
    assert built["outputs"][0]["dtype"] == "float16"


def test_a_function_body_in_place_of_a_plugin_is_an_error_where_plugins_are_expected(build: Build) -> None:
    refused = build(one_operator("TPAAttention", "float16"), expected={"TPAAttention": 1})
    assert refused["fact"] == "0 of 1 TPAAttention nodes did, and no plugin library was given"


def test_without_library_and_function_the_node_is_named(build: Build) -> None:
    refused = build(one_operator("TPAAttention", "float16", function=False))
    assert refused["rule"] == "TensorRT must be able to parse the graph"
    assert "the_node (TPAAttention)" in refused["fact"]
    assert "plugin library" in refused["next_step"]


def test_the_engine_carries_the_library_on_demand(build: Build, library: Path) -> None:
    model = one_operator("TPAAttention", "float16", in_place=True)
    alone, whole = build(model, [library]), build(model, [library], embed=True)
    assert whole["bytes"] - alone["bytes"] >= library.stat().st_size


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"leave_out": "scale"}, "scale is missing"),
        ({"attributes": {"factored_query": 3}}, "factored_query is 3, not 0 or 1"),
        ({"attributes": {"value_scale": 2}}, "value_scale must be a float"),
        ({"attributes": {"contextual_key": 0.5}}, "contextual_key must be an integer"),
        ({"dtypes": {"a_q": "int32"}}, "a_q is of TensorRT type 3"),
        ({"dtypes": {"cos": "float32"}}, "cos is of TensorRT type 0"),
        ({"dtypes": {"attention_mask": "int32"}}, "masks must be int64"),
        ({"sizes": {"D/2": 4}}, "frequencies is [4] for [D/2], but by b_q D is 10"),
        ({"sizes": {"P": 8, "S": 2, "T": 11}}, "attention_mask has 11 columns, not 8 + 2"),
        ({"in_place": True, "sizes": {"P": 8, "T": 11}}, "room for T = 11 tokens, they have 8 slots"),
        ({"sizes": {"D": 6, "D/2": 3, "R_K": 5000}}, "sizes must be ones its kernels can run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_says_what_is_wrong(build: Build, library: Path, change: dict[str, object], says: str) -> None:
    refused = build(one_operator("TPAAttention", "float16", function=False, **change), [library])
    assert says in refused.get("fact", refused)
    assert "edgekit::TPAAttention" in refused["stderr"]


def test_an_axis_without_sizes_is_refused(build: Build, library: Path) -> None:
    refused = build(one_operator("TPAAppend", "float16"), [library], axes={"batch_size": (1, 1, 1)})
    assert refused["fact"].startswith("axis 1 of past is called past_sequence_length")


def test_an_unknown_gpu_is_refused(build: Build, library: Path) -> None:
    refused = build(one_operator("TPAAppend", "float16"), [library], capabilities=("87",))
    assert "compute capability 87 is not one of 75, 80, 86, 89, 120, 121" in refused["fact"]


def test_a_library_that_is_none_is_refused(build: Build, tmp_path: Path) -> None:
    broken = tmp_path / "libnone.so"
    broken.write_bytes(b"no library")
    assert build(one_operator("TPAAppend", "float16"), [broken])["rule"] == "a plugin library must load"


def test_memory_figures_are_read(build: Build, library: Path) -> None:
    built = build(one_operator("TPAAttention", "float32"), [library])
    assert built["weights_bytes"] == 0
    assert built["activation_bytes"] > 0
