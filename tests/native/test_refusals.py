"""What the native operators refuse, with the rule and the fact in the message; never a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit.ops.registry import operator
from tests.native.oracle import Sizes, attributes_of, inputs_of
from tests.ops.backends import onnx_native

SPEC = operator("TPAAttention")
APPEND = operator("TPAAppend")
GOOD = Sizes(past=5, new=2, batch=2, heads=3, key_size=8, value_size=6, rank_q=3, columns=4)

pytestmark = pytest.mark.usefixtures("library")

Inputs = dict[str, np.ndarray]


def cut(name: str, axis: int) -> Callable[[Inputs], None]:
    """Removes the last entry along an axis."""

    def change(inputs: Inputs) -> None:
        inputs[name] = np.delete(inputs[name], -1, axis)

    return change


def replaced(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Inputs], None]:
    def change(inputs: Inputs) -> None:
        inputs[name] = value(inputs[name])

    return change


BAD_INPUTS = {
    "batch": (cut("b_k", 0), "axis B of b_k must be that of a_q; it is 1, there it is 2"),
    "new-tokens": (cut("b_v", 1), "axis S of b_v must be that of a_q; it is 1, there it is 2"),
    "heads-of-keys": (cut("a_k", 3), "axis H of a_k must be that of a_q; it is 2, there it is 3"),
    "heads-in-cache": (cut("past_a_v", 3), "axis H of past_a_v must be that of a_q"),
    "rank": (cut("past_b_k", 2), "axis R_K of past_b_k must be that of a_k"),
    "rank-of-values": (cut("a_v", 2), "axis R_V of b_v must be that of a_v"),
    "key-size": (cut("past_b_k", 3), "axis D of past_b_k must be that of b_q"),
    "value-size": (cut("past_b_v", 3), "axis E of past_b_v must be that of b_v"),
    "caches-differ": (cut("past_b_v", 1), "axis P of past_b_v must be that of past_a_k"),
    "mask-batch": (cut("attention_mask", 0), "axis B of attention_mask must be that of a_q"),
    "mask-short": (cut("attention_mask", 1), None),  # a past that is longer than T - S and shorter than T
    "table": (cut("sin", 0), "axis L of sin must be that of cos"),
    "frequencies-number": (cut("frequencies", 0), "frequencies must have D/2 entries"),
    "frequency-too-large": (replaced("frequencies", lambda x: x * 0 + 4), "columns of cos, 0 to 3; entry 0 is 4"),
    "frequency-negative": (replaced("frequencies", lambda x: x * 0 - 1), "entry 0 is -1"),
    "rank-of-tensor": (replaced("b_q", lambda x: x[0]), "input b_q must have 4 dimensions; its shape is [2, 3, 8]"),
    "mask-type": (replaced("attention_mask", lambda x: x.astype(np.float32)), "attention_mask must be int64"),
    "mixed-types": (replaced("b_v", lambda x: x.astype(np.float16)), "input b_v must be float32; it is float16"),
    "frequencies-type": (replaced("frequencies", lambda x: x.astype(np.float32)), "frequencies must be int64"),
    "no-heads": (
        lambda x: [x.update({n: x[n][..., :0]}) for n in ("a_q", "a_k", "a_v", "past_a_k", "past_a_v")],
        "at least 1",
    ),
}


def refuse(spec: Any, attributes: dict[str, Any], inputs: Inputs, outputs: tuple[str, ...] = ()) -> str:
    """The message with which the session's run, or its making, fails."""
    names = outputs or tuple(operand.name for operand in spec.active_outputs(attributes))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - onnxruntime's exceptions have no common base of use here
        onnx_native.session_of(spec, attributes, {n: v.dtype.name for n, v in inputs.items()}, names).run(None, inputs)
    message = str(caught.value)
    assert f"edgekit::{spec.name}: " in message, message
    return message


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_inputs_that_contradict_each_other(name: str) -> None:
    change, words = BAD_INPUTS[name]
    attributes = attributes_of(GOOD)
    inputs = inputs_of(GOOD, attributes, "float32")
    onnx_native.run(SPEC, attributes, inputs, False)  # it is the change that is refused
    change(inputs)
    message = refuse(SPEC, attributes, inputs)
    assert (words or "the past must hold T - S slots, or be a buffer of T or more; it has 5, T = 6") in message


def test_odd_head_size() -> None:
    s = Sizes(past=2, key_size=7)
    attributes = attributes_of(s)
    assert "D must divide" in refuse(SPEC, attributes, inputs_of(s, attributes, "float32"))


def test_positions_beyond_the_table() -> None:
    s = Sizes(past=5, new=2, batch=2, positions=6)
    attributes = attributes_of(s)
    mask = np.ones((2, 7), np.int64)
    message = refuse(SPEC, attributes, inputs_of(s, attributes, "float32", mask))
    assert "row of cos, which has 6; sequence 0 reaches position 6" in message
    mask[:, 0] = 0  # one real token less fits
    onnx_native.run(SPEC, attributes, inputs_of(s, attributes, "float32", mask), False)


def test_a_cache_that_is_too_short() -> None:
    attributes = attributes_of(GOOD)
    inputs = inputs_of(GOOD, attributes, "float32")
    for name in inputs:
        if name.startswith("past_"):
            inputs[name] = inputs[name][:, :3]
    assert "it has 3, T = 7 (attention_mask), S = 2" in refuse(SPEC, attributes, inputs)


def test_more_new_tokens_than_the_mask_has() -> None:
    attributes = attributes_of(GOOD)
    inputs = inputs_of(GOOD, attributes, "float32")
    inputs["attention_mask"] = inputs["attention_mask"][:, :1]
    assert "T = 1 (attention_mask), S = 2" in refuse(SPEC, attributes, inputs)


def test_inputs_and_flags_must_agree() -> None:
    attributes = attributes_of(GOOD)
    inputs = inputs_of(GOOD, attributes, "float32")
    message = refuse(SPEC, attributes | {"contextual_key": 0}, inputs, ("output", "b", "c", "d"))
    assert "contextual_key=0 contextual_value=1 asks for 13 inputs; the node has 14" in message
    message = refuse(SPEC, attributes, inputs, ("output", "b", "c"))
    assert "asks for 5 outputs; the node has 3" in message


@pytest.mark.parametrize("name", ["scale", "value_scale", "factored_query", "contextual_key", "contextual_value"])
def test_a_missing_attribute(name: str) -> None:
    attributes = attributes_of(GOOD)
    inputs = inputs_of(GOOD, attributes, "float32")
    names = tuple(operand.name for operand in SPEC.active_outputs(attributes))
    del attributes[name]
    assert f"attribute {name} must be" in refuse(SPEC, attributes, inputs, names)


@pytest.mark.parametrize(
    ("name", "value", "words"), [("factored_query", 2, "0 or 1; it is 2"), ("scale", np.nan, "finite")]
)
def test_attributes_out_of_range(name: str, value: float, words: str) -> None:
    attributes = attributes_of(GOOD)
    inputs = inputs_of(GOOD, attributes, "float32")
    names = tuple(operand.name for operand in SPEC.active_outputs(attributes))
    assert words in refuse(SPEC, attributes | {name: value}, inputs, names)


def test_append_refuses_what_does_not_fit() -> None:
    past, new, mask = np.zeros((2, 5, 2, 3), "f"), np.zeros((2, 1, 2, 3), "f"), np.ones((2, 6), np.int64)
    good = {"past": past, "new": new, "attention_mask": mask}
    onnx_native.run(APPEND, {}, good, False)
    for change, words in (
        ({"new": new[..., :2]}, "axis W of new must be that of past; it is 2, there it is 3"),
        ({"new": new[:1]}, "axis B of new must be that of past"),
        ({"new": new[:, :, :1]}, "axis R of new must be that of past"),
        ({"past": past[:, :4]}, "it has 4, T = 6 (attention_mask), S = 1"),
        ({"attention_mask": mask[0]}, "attention_mask must have 2 dimensions; its shape is [6]"),
        ({"attention_mask": mask.astype("f")}, "attention_mask must be int64"),
        ({"new": new.astype(np.float64)}, "input new must be float32; it is float64"),
    ):
        assert words in refuse(APPEND, APPEND.complete({}), good | change)
