"""Finding operators, completing attributes, and shapes from sizes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgekit.ops.registry import operator, operators
from edgekit.ops.shapes import evaluate
from edgekit.ops.spec import OperatorError

TPA = operator("TPAAttention")
VARIANT = {"scale": 1.0, "value_scale": 1.0, "factored_query": 1, "contextual_key": 1, "contextual_value": 0}
SHAPES = {
    "a_q": (2, 3, 6, 9),
    "b_q": (2, 3, 6, 8),
    "a_k": (2, 3, 2, 9),
    "b_k": (2, 3, 2, 8),
    "a_v": (4, 9),
    "b_v": (2, 3, 4, 5),
    "past_a_k": (2, 10, 2, 9),
    "past_b_k": (2, 10, 2, 8),
    "past_b_v": (2, 10, 4, 5),
    "attention_mask": (2, 13),
    "cos": (100, 7),
    "sin": (100, 7),
    "frequencies": (4,),
}


def test_operators_are_found_by_their_files() -> None:
    assert operators() == ["CausalAttention", "TPAAppend", "TPAAttention", "TTSparseLinear"]


@pytest.mark.parametrize(("name", "near"), [("TPAAtention", "TPAAttention"), ("tpa_apend", "TPAAppend")])
def test_an_unknown_name_lists_the_valid_ones(name: str, near: str) -> None:
    with pytest.raises(OperatorError) as caught:
        operator(name)
    assert f"{name!r} is none (did you mean {near}?)" in caught.value.fact
    assert all(valid in caught.value.next_step for valid in operators())


def test_specifications_load_no_torch() -> None:
    code = (
        "import sys; from edgekit.ops.registry import operator, operators\n"
        "[operator(name) for name in operators()]\n"
        "print([m for m in ('torch', 'onnx', 'numpy') if m in sys.modules])\n"
        "operator('TPAAttention').function(20, dict(factored_query=1, contextual_key=1, contextual_value=1))\n"
        "operator('TPAAttention').cases()[0].inputs('float32')\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split("\n")[:2] == ["[]", "False"]


def test_every_attribute_is_written_out() -> None:
    full = TPA.complete(VARIANT)
    assert list(full) == [attribute.name for attribute in TPA.attributes]
    assert (full["in_place"], full["plugin_namespace"], full["plugin_version"]) == (0, "edgekit", "1")
    with pytest.raises(OperatorError, match="missing: scale; unknown: factor"):
        TPA.complete({name: value for name, value in VARIANT.items() if name != "scale"} | {"factor": 1})


def test_conditional_operands_are_left_out() -> None:
    assert [operand.name for operand in TPA.active_inputs(VARIANT)] == list(SHAPES)
    outputs = [operand.name for operand in TPA.active_outputs(VARIANT)]
    assert outputs == ["output", "present_a_k", "present_b_k", "present_b_v"]


@pytest.mark.parametrize(("past", "present"), [(10, 13), (13, 13), (64, 64)])
def test_presents_grow_or_are_the_buffers(past: int, present: int) -> None:
    shapes = {name: (2, past, *s[2:]) if name.startswith("past") else s for name, s in SHAPES.items()}
    found = TPA.output_shapes(VARIANT, shapes)
    assert found == {
        "output": (2, 3, 9, 5),
        "present_a_k": (2, present, 2, 9),
        "present_b_k": (2, present, 2, 8),
        "present_b_v": (2, present, 4, 5),
    }


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"b_k": (2, 3, 2, 6)}, "D is 8"),
        ({"a_v": (2, 3, 4, 9)}, "a_v has the axes \\[R_V, H\\]"),
        ({"past_b_v": (2, 9, 4, 5)}, "P is 10"),
        ({"frequencies": (8,)}, "D/2 is 4"),
        ({"attention_mask": (2, 2)}, "covers 2 tokens, fewer than the 3 new ones"),
        ({"attention_mask": (2, 12)}, "must hold the 9 older tokens, or be a buffer for at least 12; it holds 10"),
        ({"b_q": (2, 3, 6, 7), "b_k": (2, 3, 2, 7), "past_b_k": (2, 10, 2, 7)}, "D/2 must be a whole number"),
    ],
)
def test_contradictions_are_refused(change: dict[str, tuple[int, ...]], fact: str) -> None:
    with pytest.raises(OperatorError, match=fact):
        TPA.output_shapes(VARIANT, SHAPES | change)


def test_a_missing_operand_is_refused() -> None:
    with pytest.raises(OperatorError, match="TPAAttention takes here: a_q, b_q"):
        TPA.output_shapes(VARIANT, {name: shape for name, shape in SHAPES.items() if name != "a_q"})


def test_expressions() -> None:
    sizes = {"H": 6, "D": 8, "P": 5, "S": 2}
    assert [evaluate(text, sizes) for text in ("H", "H*D", "D/2", "P+S", "3")] == [6, 48, 4, 7, 3]
    with pytest.raises(ValueError, match="no operand tells the size E"):
        evaluate("E", sizes)
