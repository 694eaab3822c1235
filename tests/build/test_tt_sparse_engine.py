"""Engines with the plugin of TTSparseLinear, built by TensorRT-RTX on a machine without a GPU."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import pytest

from edgekit.build.profile import decoder_axes
from edgekit.checkpoint import open_checkpoint
from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.export.write import MODEL_FILE, write_model
from tests.build.conftest import Build
from tests.build.graphs import SIZES, one_operator
from tests.compress.layerwise.small import compressed
from tests.parity.tiny_models import export, write_checkpoint
from tests.rewrite.test_tt_sparse_rules import NAMES, graph_of, rewritten

VARIANTS = [
    {},
    {"low_rank": 0, "value_bits": 4},
    {"bias": 0, "residual": 2, "factor_bits": 16, "value_bits": 16},
    {"residual": 3, "factor_bits": 8, "value_bits": 8},
    {"low_rank": 0, "bias": 0, "residual": 2, "value_bits": 8, "value_block": 16},
    {"residual": 0, "factor_bits": 4},
    {"residual": 0, "low_rank": 0, "bias": 0, "base_bits": 2},
    {"base_bits": 3, "zero_points": 1, "base_block": 32, "factor_bits": 4, "value_bits": 8},
    {"residual": 2, "low_rank": 0, "base_bits": 4, "base_block": 192},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_compressed_layer_is_one_plugin_layer(
    build: Build, library: Path, dtype: str, variant: dict[str, int]
) -> None:
    model = one_operator("TTSparseLinear", dtype, attributes=variant)
    built = build(model, [library], expected={"TTSparseLinear": 1})
    assert built.get("layers") == {"PLUGIN_V3": 1}, built
    assert [(o["name"], o["dtype"], o["shape"]) for o in built["outputs"]] == [("y", dtype, [-1, -1, SIZES["O"]])]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attributes": {"low_rank": 2}}, "low_rank is 2, not one of 0, 1"),
        ({"attributes": {"factor_bits": 3}}, "factor_bits is 3, not one of 0, 16, 8, 4"),
        ({"attributes": {"value_block": 24, "value_bits": 8}}, "value_block is 24, not a multiple of 16"),
        ({"attributes": {"rank": 0}}, "rank or entries contradict low_rank or residual"),
        ({"attributes": {"base_bits": 5}}, "base_bits is 5, not one of 0, 2, 3, 4"),
        ({"attributes": {"base_bits": 3, "base_block": 48}}, "base_block is 48, not a multiple of 32"),
        ({"attributes": {"input_bits": 8}}, "input_bits is 8, not one of 24, 16"),
        ({"attributes": {"zero_points": 1}}, "zero_points is 1 without a base"),
        ({"attributes": {"residual": 0, "low_rank": 0}}, "there is neither a base, nor a pair, nor a residual"),
        ({"attributes": {"base_bits": 3}, "sizes": {"Q_W": 95}}, "base has 95 numbers, not 96"),
        ({"attributes": {"base_bits": 3}, "sizes": {"Q_S": 32}}, "base_scales has 32 numbers, not 16"),
        ({"attributes": {"base_bits": 3, "zero_points": 1}, "sizes": {"Q_Z": 1}}, "base_zeros has 1 numbers, not 2"),
        ({"attributes": {"base_bits": 3}, "dtypes": {"base_scales": "float32"}}, "base_scales is of TensorRT type 0"),
        ({"dtypes": {"positions": "int64"}}, "positions is of TensorRT type 8"),
        ({"dtypes": {"b": "float32"}}, "b is of TensorRT type 0"),
        ({"attributes": {"factor_bits": 4}, "sizes": {"A_S": 7}}, "a_scales has 7 numbers, not 1"),
        ({"sizes": {"I_W": 9}}, "positions has 9 numbers, not 7"),
        ({"sizes": {"E": 14}}, "values is [14] for [E], but by its attribute E is 13"),
        ({"sizes": {"K": 70000}}, "columns of 16 bits reach 65536 inputs, x has 70000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refused_compressed_layer_says_what_is_wrong(
    build: Build, library: Path, change: dict[str, object], says: str
) -> None:
    refused = build(one_operator("TTSparseLinear", "float16", function=False, **change), [library])
    assert says in refused.get("fact", refused)
    assert "edgekit::TTSparseLinear" in refused["stderr"]


@pytest.mark.parametrize(
    ("variant", "products"),
    [
        ({"residual": 2, "value_bits": 8}, 3),
        ({"residual": 3, "factor_bits": 4}, 3),
        ({"residual": 0}, 2),
        ({"residual": 0, "low_rank": 0, "base_bits": 3, "zero_points": 1}, 1),
        ({"residual": 0, "base_bits": 4}, 3),
    ],
    ids=str,
)
def test_the_body_of_a_compressed_layer_builds(build: Build, variant: dict[str, int], products: int) -> None:
    built = build(one_operator("TTSparseLinear", "float16", attributes=variant))
    assert "PLUGIN_V3" not in built["layers"], built
    assert built["layers"]["MATRIX_MULTIPLY"] == products


def test_the_body_of_positions_by_column_needs_the_plugin(build: Build) -> None:
    refused = build(one_operator("TTSparseLinear", "float16"))
    assert "Unsupported reduction type" in refused["fact"]


@pytest.mark.parametrize("form", [FORM_TENSORRT, FORM_JETPACK6])
def test_layers_of_a_rewritten_graph(build: Build, library: Path, tmp_path: Path, form: str) -> None:
    """Pairs and 2:4 are plain products, the latter free to be sparse; the other variants are one plugin each."""
    graph = graph_of(NAMES, "float16")
    rewritten(graph, form, "float16")
    write_model(graph, tmp_path)
    axes = {f"{axis}{i}": (1, 2, 4) for i in range(len(NAMES)) for axis in ("batch", "sequence")}
    built = build(tmp_path / MODEL_FILE, [library], expected={"TTSparseLinear": 4}, axes=axes)
    assert built.get("layers", built)["PLUGIN_V3"] == 4
    assert built["layers"]["MATRIX_MULTIPLY"] == 3 * 2 + 1
    assert built["sparse_weights"] == 1


@pytest.mark.parametrize("form", [FORM_TENSORRT, FORM_JETPACK6])
def test_a_compressed_decoder_has_a_plugin_for_each_of_its_bases(
    build: Build, library: Path, tmp_path: Path, form: str
) -> None:
    """Codes of 2 and 3 bits beside pairs and entries, which TensorRT itself does not read."""
    source = write_checkpoint(tmp_path / "source", "llama", num_hidden_layers=2, intermediate_size=128)
    compressed(source, tmp_path / "small", bits_per_weight=4.8, base_bits=(2, 3), allocate=True)
    bundle = export(open_checkpoint(tmp_path / "small"), tmp_path / "bundle", form, "fp16")
    axes = decoder_axes(batch=1, new=16, context=48, in_place=True)
    built = build(
        bundle.graph,
        [library],
        expected={"TTSparseLinear": 14},
        axes={name: astuple(sizes) for name, sizes in axes.items()},
    )
    assert built.get("plugins") == {"TTSparseLinear": 14}, built
    assert built["layers"]["PLUGIN_V3"] == 14


def test_other_engines_have_no_sparse_weights(build: Build) -> None:
    assert build(one_operator("TTSparseLinear", "float16", attributes={"residual": 0}))["sparse_weights"] == 0
