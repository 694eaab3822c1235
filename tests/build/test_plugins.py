"""Plugins asked directly, without TensorRT: fields, aliases, refusals, and which tensor reaches which operand."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgekit.ops.registry import operator
from tests.build.graphs import ATTRIBUTES, FACTORED, tt_sizes

PLUGINS = Path(__file__).parents[2] / "plugins"
FIELDS = ["scale=f:0.1", "value_scale=f:3", "factored_query=i:1", "contextual_key=i:0", "contextual_value=i:1"]


def compiled(source: str, folder: Path, include: Path, nvcc: Path, *extra: str) -> Path:
    """A test program."""
    program = folder / source.removesuffix(".cpp")
    command = [str(nvcc), "-std=c++17", "-O1", "--cudart=static", str(Path(__file__).with_name(source)), *extra]
    command += ["-isystem", str(include), "-I", str(PLUGINS), "-o", str(program)]
    subprocess.run(command, check=True, capture_output=True)
    return program


def output_of(*command: object) -> list[str]:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    ).stdout.splitlines()


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory, tensorrt_include: Path, nvcc: Path) -> Path:
    """The program that loads a library, linked to a TensorRT that does nothing but exist under its name."""
    folder = tmp_path_factory.mktemp("load")
    empty, fake = folder / "empty.cpp", folder / "libnvinfer.so.10"
    empty.write_text("")
    subprocess.run(["g++", "-shared", "-Wl,-soname,libnvinfer.so.10", str(empty), "-o", str(fake)], check=True)
    linked = (f"-Xlinker=--no-as-needed,{fake},-rpath,{folder}",)
    return compiled("load_library.cpp", folder, tensorrt_include, nvcc, *linked)


def test_every_operator_has_its_creator_with_the_fields_of_its_specification(load: Path, library: Path) -> None:
    lines = output_of(load, library)
    expected = []
    for name in sorted(ATTRIBUTES):
        fields = [a.name for a in operator(name).attributes if a.kind != "string"]
        expected.append(" ".join(["creator", name, "1", "edgekit", "PLUGIN CREATOR_V3ONE", *fields]))
    assert lines == expected


@pytest.mark.parametrize("in_place", [0, 1])
def test_fields_survive_an_engine(load: Path, library: Path, in_place: int) -> None:
    lines = output_of(load, library, "TPAAttention", *FIELDS, f"in_place=i:{in_place}")
    [serialised] = [line.removeprefix("serialised ") for line in lines if line.startswith("serialised")]
    [restored] = [line.removeprefix("restored ") for line in lines if line.startswith("restored")]
    assert serialised == restored
    values = dict(word.split("=") for word in restored.split())
    assert float.fromhex(values["scale"][2:]) == pytest.approx(0.1, rel=1e-7)
    assert values["value_scale"] == "f:0x1.8p+1"
    flags = ("factored_query", "contextual_key", "contextual_value", "in_place")
    assert [values[name] for name in flags] == ["i:1", "i:0", "i:1", f"i:{in_place}"]
    assert "plugin TPAAttention 1 edgekit" in lines


def test_in_place_each_cache_is_aliased_to_its_past(load: Path, library: Path) -> None:
    lines = output_of(load, library, "TPAAttention", *FIELDS, "in_place=i:1")
    flags = {"factored_query": 1, "contextual_key": 0, "contextual_value": 1}
    spec = operator("TPAAttention")
    inputs = [operand.name for operand in spec.active_inputs(flags)]
    expected = [inputs.index(o.past) if o.past else -1 for o in spec.active_outputs(flags)]
    assert expected.count(-1) == 1
    assert "aliases " + " ".join(map(str, expected)) in lines
    assert "build interface 2" in lines
    assert "aliases -1 -1 -1 -1" in output_of(load, library, "TPAAttention", *FIELDS, "in_place=i:0")


def test_a_refusal_goes_to_the_logger_of_tensorrt(load: Path, library: Path) -> None:
    lines = output_of(load, library, "TPAAttention", *FIELDS)
    assert lines[-2:] == [
        "log 1 edgekit::TPAAttention: every attribute must be written on the node; in_place is missing",
        "refused",
    ]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, tensorrt_include: Path, nvcc: Path) -> Path:
    sources = [PLUGINS / "tensorrt_library.cpp", *sorted(PLUGINS.glob("*/plugin.cpp"))]
    folder = tmp_path_factory.mktemp("record")
    return compiled("record_launch.cpp", folder, tensorrt_include, nvcc, *map(str, sources))


SIZES = {
    "B": 2, "S": 3, "P": 8, "T": 11, "N": 11, "H": 5, "D": 14, "E": 13, "R_Q": 6, "R_K": 4, "R_V": 9, "L": 64, "F": 7,
    "D/2": 7, "R": 4, "W": 10, "K": 21, "O": 17,
}  # fmt: skip


def recorded(record: Path, name: str, attributes: dict[str, Any], sizes: dict[str, int]) -> dict[str, float]:
    spec = operator(name)
    values = spec.complete(attributes)

    def shape(operand: Any) -> str:
        return ",".join(str(sizes[letter]) for letter in operand.form(values).dims)

    kinds = {a.name: a.kind[0] for a in spec.attributes if a.kind != "string"}
    fields = [f"{key}={kind}:{values[key]}" for key, kind in kinds.items()]
    inputs = [shape(operand) for operand in spec.active_inputs(values)]
    outputs = [shape(operand) for operand in spec.active_outputs(values)]
    lines = output_of(record, name, *fields, "--", *inputs, "--", *outputs)
    return {key: float(value) for key, value in (line.split() for line in lines)}


@pytest.mark.parametrize("in_place", [0, 1])
@pytest.mark.parametrize("variant", list(itertools.product((0, 1), repeat=3)))
def test_every_tensor_reaches_its_operand(record: Path, variant: tuple[int, int, int], in_place: int) -> None:
    flags = dict(zip(FACTORED, variant, strict=True))
    sizes = SIZES | ({"P": 20, "N": 20} if in_place else {})
    attributes = {"scale": 0.25, "value_scale": 3.0, "in_place": in_place, **flags}
    found = recorded(record, "TPAAttention", attributes, sizes)
    spec = operator("TPAAttention")
    inputs = [operand.name for operand in spec.active_inputs(flags)]
    outputs = [operand.name for operand in spec.active_outputs(flags)]
    for operand in spec.inputs:
        assert found[operand.name] == (1000 + inputs.index(operand.name) if operand.name in inputs else 0)
    for operand in spec.outputs:
        assert found[operand.name] == (2000 + outputs.index(operand.name) if operand.name in outputs else 0)
    letters = {"batch": "B", "fresh": "S", "total": "T", "past_slots": "P", "present_slots": "N", "heads": "H"}
    letters |= {"key_size": "D", "value_size": "E", "rank_k": "R_K", "rank_v": "R_V"}
    letters |= {"rotary_rows": "L", "rotary_columns": "F"} | ({"rank_q": "R_Q"} if flags["factored_query"] else {})
    assert {name: found[name] for name in letters} == {name: sizes[letter] for name, letter in letters.items()}
    assert (found["scale"], found["value_scale"]) == (0.25, 3.0)
    assert (found["element"], found["workspace"], found["stream"]) == (2, 3000, 4000)
    assert (found["shapes"], found["status"]) == (0, 0)


def test_every_tensor_of_an_append_reaches_its_operand(record: Path) -> None:
    found = recorded(record, "TPAAppend", {"in_place": 0}, SIZES)
    assert (found["past"], found["new"], found["present"]) == (1000, 1001, 2000)
    assert (found["batch"], found["fresh"], found["total"]) == (2, 3, 11)
    assert (found["past_slots"], found["present_slots"], found["row_bytes"]) == (8, 11, 4 * 10 * 2)


def test_shapes_that_break_the_cache_rule_are_refused_before_the_run(record: Path) -> None:
    assert recorded(record, "TPAAppend", {"in_place": 0}, SIZES | {"T": 12, "N": 12})["shapes"] == -1
    assert recorded(record, "TPAAppend", {"in_place": 1}, SIZES | {"P": 10, "N": 10})["shapes"] == -1
    assert recorded(record, "TPAAppend", {"in_place": 0}, SIZES | {"N": 12})["shapes"] == -1


LAYER = {"low_rank": 1, "bias": 1, "residual": 1, "out_features": 17, "rank": 4, "entries": 12}
LAYERS = [
    LAYER,
    LAYER | {"low_rank": 0, "rank": 0, "bias": 0, "residual": 2, "value_bits": 16},
    LAYER | {"residual": 0, "entries": 0, "factor_bits": 8, "factor_block": 32},
    LAYER | {"factor_bits": 4, "value_bits": 8, "value_block": 16, "base_bits": 3, "zero_points": 1, "base_block": 32},
    LAYER | {"residual": 0, "entries": 0, "low_rank": 0, "rank": 0, "bias": 0, "base_bits": 2, "base_block": 96},
]


def compressed(record: Path, attributes: dict[str, int], changed: dict[str, int]) -> dict[str, float]:
    values = operator("TTSparseLinear").complete(attributes)
    return recorded(record, "TTSparseLinear", values, SIZES | tt_sizes(values, SIZES["K"]) | changed)


@pytest.mark.parametrize("attributes", LAYERS, ids=str)
def test_every_tensor_of_a_compressed_layer_reaches_its_operand(record: Path, attributes: dict[str, int]) -> None:
    found, spec = compressed(record, attributes, {}), operator("TTSparseLinear")
    values = spec.complete(attributes)
    inputs = [operand.name for operand in spec.active_inputs(values)]
    for operand in spec.inputs:
        assert found[operand.name] == (1000 + inputs.index(operand.name) if operand.name in inputs else 0)
    assert found["y"] == 2000
    sizes = {"tokens": 6, "inputs": 21, "outputs": 17, "kept": values["group_kept"]}
    same = ("rank", "entries", "residual", "factor_bits", "factor_block", "value_bits", "value_block")
    sizes |= {name: values[name] for name in (*same, "base_bits", "base_block")}
    assert {name: found[name] for name in sizes} == sizes
    assert (found["element"], found["workspace"], found["stream"]) == (2, 3000, 4000)
    assert (found["shapes"], found["status"]) == (0, 0)


@pytest.mark.parametrize("change", [{"I_W": 5}, {"K": 70000}, {"Q_W": 95}, {"Q_S": 31}, {"Q_Z": 4}, {"O": 18}], ids=str)
def test_a_compressed_layer_whose_operands_disagree_is_refused(record: Path, change: dict[str, int]) -> None:
    assert compressed(record, LAYERS[3], change)["shapes"] == -1
