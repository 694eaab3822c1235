"""Golden fingerprints: what they hold, and that every kind of change is named."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from onnx import TensorProto, helper

from edgekit.bundle import read_bundle
from edgekit.errors import RecipeError
from edgekit.recipe.fingerprint import (
    check_fingerprint,
    differences,
    fingerprint_of,
    graph_fingerprint,
    read_fingerprint,
)
from tests.recipe.workshop import Workshop, done, statuses

#: The graph of tests/recipe/workshop.py, counted by hand.
EXPECTED: dict[str, Any] = {
    "form": "ort",
    "dtype": "int4",
    "opset": {"onnx": 23},
    "inputs": {"past_key_values.*.key float [B, 4]": 2},
    "outputs": {"x1 float [B, 4]": 1},
    "operators": {"Relu (onnx)": 2},
    "initializers": {"uint8 [2, 3]": 1},
    "rules": {"fuse_norm": {"fired": 3, "refused": 1}},
}


def test_a_fingerprint_counts_what_is_in_the_graph(workshop: Workshop) -> None:
    workshop.make()
    assert fingerprint_of(read_bundle(workshop.destination)) == EXPECTED


def test_without_one_the_step_says_so(workshop: Workshop) -> None:
    for _ in range(2):
        step = workshop.make().steps[2]
        assert (step.name, step.status) == ("fingerprint", "skipped")
        assert "--update-fingerprint writes it" in step.detail


def test_update_writes_it_and_the_next_run_compares(workshop: Workshop) -> None:
    workshop.make(update_fingerprint=True)
    assert read_fingerprint(workshop.recipe.fingerprint_path) == EXPECTED
    assert statuses(workshop.make().steps)["fingerprint"] == "skipped"
    workshop.recipe.fingerprint_path.write_text(json.dumps(EXPECTED))  # the same with other spaces
    assert done(workshop.make().steps) == ["fingerprint"]


def test_another_graph_is_refused_before_it_is_compared_with_pytorch(workshop: Workshop) -> None:
    workshop.make(update_fingerprint=True)
    workshop.relus = 3
    workshop.write(("", "[limits]\nmax_context = 128"))
    with pytest.raises(RecipeError) as caught:
        workshop.make()
    assert "operators: Relu (onnx): 2 expected, 3 found" in caught.value.fact
    assert "outputs: x1 float [B, 4]: 1 expected, none found" in caught.value.fact
    assert "outputs: x2 float [B, 4]: none expected, 1 found" in caught.value.fact
    assert "--update-fingerprint" in caught.value.next_step
    assert workshop.calls == ["export"]
    made = workshop.make(update_fingerprint=True)  # the change is meant: nothing is exported again
    assert workshop.calls == ["parity"]
    assert done(made.steps) == ["fingerprint", "parity", "bundle"]


@pytest.mark.parametrize(
    ("where", "value", "line"),
    [
        (("opset", "onnx"), 24, "opset: onnx: 24 expected, 23 found"),
        (("form",), "portable", 'form: "portable" expected, "ort" found'),
        (("initializers", "float [9]"), 5, "initializers: float [9]: 5 expected, none found"),
        (("rules", "fuse_norm", "fired"), 4, "rules: fuse_norm: fired: 4 expected, 3 found"),
        (("inputs", "past_key_values.*.key float [B, 4]"), 3, "inputs: past_key_values.*.key float [B, 4]: 3 expected"),
    ],
)
def test_a_difference_is_one_readable_line(where: tuple[str, ...], value: object, line: str) -> None:
    golden = json.loads(json.dumps(EXPECTED))
    table = golden
    for key in where[:-1]:
        table = table[key]
    table[where[-1]] = value
    (found,) = differences(golden, EXPECTED)
    assert found.startswith(line)


def test_bits_are_measured_and_therefore_no_part_of_it() -> None:
    """The same matrix at 4 and at 8 bits; its size is a part."""

    def operators(bits: int, inputs: int) -> dict[str, Any]:
        shape = [64, inputs // 32, 32 * bits // 8]
        codes = helper.make_tensor("codes", TensorProto.UINT8, shape, bytes(math.prod(shape)), raw=True)
        attributes = {"K": inputs, "N": 64, "bits": bits, "block_size": 32}
        node = helper.make_node("MatMulNBits", ["x", "codes"], ["y"], domain="com.microsoft", **attributes)
        return graph_fingerprint(helper.make_model(helper.make_graph([node], "g", [], [], [codes])), "ort", "int4", {})

    assert operators(4, 96) == operators(8, 96)
    assert operators(4, 96)["operators"] == {"MatMulNBits (com.microsoft) K=96 N=64 block_size=32": 1}
    assert operators(4, 96)["initializers"] == {}
    assert operators(4, 96) != operators(4, 128)


def test_many_differences_are_cut(workshop: Workshop) -> None:
    golden = workshop.recipe.fingerprint_path
    golden.write_text(json.dumps({**EXPECTED, "operators": {f"Op{i} (onnx)": 1 for i in range(50)}}))
    with pytest.raises(RecipeError) as caught:
        check_fingerprint(EXPECTED, golden)
    assert "51 differences" in caught.value.fact
    assert "and 31 more" in caught.value.fact


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_damaged_fingerprint_is_refused(workshop: Workshop, content: str) -> None:
    workshop.recipe.fingerprint_path.write_text(content)
    with pytest.raises(RecipeError, match="must be valid JSON"):
        check_fingerprint(EXPECTED, workshop.recipe.fingerprint_path)
