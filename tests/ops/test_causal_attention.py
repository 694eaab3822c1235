"""The operator against its definition written as loops in NumPy, and the node that a trace contains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgekit.layers.rotary import rotary_tables
from edgekit.ops.causal_attention import causal_attention, rotate

POSITIONS = 64


def case(
    batch: int, new: int, past: int, heads: int, kv_heads: int, size: int, padding: tuple[int, ...], seed: int = 0
) -> dict[str, Any]:
    """Random float64 inputs; `padding` is the number of leading zeros in each row of the mask."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    mask = torch.ones(batch, past + new, dtype=torch.int64)
    for row, zeros in enumerate(padding):
        mask[row, :zeros] = 0
    cos, sin = rotary_tables(size, POSITIONS, 100.0)
    return {
        "query": draw(batch, new, heads * size),
        "key": draw(batch, new, kv_heads * size),
        "value": draw(batch, new, kv_heads * size),
        "past_key": draw(batch, kv_heads, past, size),
        "past_value": draw(batch, kv_heads, past, size),
        "attention_mask": mask,
        "cos": cos.double(),
        "sin": sin.double(),
        "num_heads": heads,
        "kv_heads": kv_heads,
        "scale": 0.7,
    }


def by_definition(inputs: dict[str, Any], window: int, softcap: float) -> np.ndarray:
    """The output by the rules of the docstring, one query and one head at a time."""
    a = {name: value.numpy() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    heads, groups = inputs["num_heads"], inputs["kv_heads"]
    batch, new, width = a["query"].shape
    past, size = a["past_key"].shape[2], width // heads
    half = size // 2

    def rotated(vector: np.ndarray, position: int) -> np.ndarray:
        angle_cos, angle_sin = a["cos"][position], a["sin"][position]
        out = np.empty(size)
        for i in range(half):
            out[i] = vector[i] * angle_cos[i] - vector[i + half] * angle_sin[i]
            out[i + half] = vector[i + half] * angle_cos[i] + vector[i] * angle_sin[i]
        return out

    output = np.zeros((batch, new, width))
    for b in range(batch):
        position = [max(int(a["attention_mask"][b, : slot + 1].sum()) - 1, 0) for slot in range(past + new)]
        for s in range(new):
            i = past + s
            for h in range(heads):
                g = h // (heads // groups)
                query = rotated(a["query"][b, s, h * size : (h + 1) * size], position[i])
                scores, values = [], []
                for j in range(i + 1):
                    if a["attention_mask"][b, j] == 0 and j != i:
                        continue
                    if window > 0 and i - j >= window:
                        continue
                    if j < past:
                        key, value = a["past_key"][b, g, j], a["past_value"][b, g, j]
                    else:
                        key = rotated(a["key"][b, j - past, g * size : (g + 1) * size], position[j])
                        value = a["value"][b, j - past, g * size : (g + 1) * size]
                    score = float(query @ key) * inputs["scale"]
                    scores.append(softcap * np.tanh(score / softcap) if softcap > 0 else score)
                    values.append(value)
                weights = np.exp(np.array(scores) - max(scores))
                output[b, s, h * size : (h + 1) * size] = weights @ np.array(values) / weights.sum()
    return output


SHAPES = [
    pytest.param((1, 1, 0, 1, 1, 2, (0,)), id="one-token"),
    pytest.param((2, 5, 0, 4, 4, 6, (0, 3)), id="multi-head-padded"),
    pytest.param((2, 3, 7, 6, 2, 10, (2, 0)), id="grouped-past"),
    pytest.param((3, 1, 9, 9, 3, 4, (0, 4, 9)), id="one-new-padded-up-to-it"),
    pytest.param((2, 4, 3, 3, 1, 8, (5, 6)), id="padding-into-the-new-tokens"),
]


@pytest.mark.parametrize("window", [-1, 1, 3])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(shape: tuple[Any, ...], softcap: float, window: int) -> None:
    inputs = case(*shape)
    output, present_key, present_value = causal_attention(**inputs, window=window, softcap=softcap)
    np.testing.assert_allclose(output.numpy(), by_definition(inputs, window, softcap), rtol=0, atol=1e-13)
    batch, new, past, _, kv_heads, size, _ = shape
    assert present_key.shape == present_value.shape == (batch, kv_heads, past + new, size)
    assert torch.equal(present_key[:, :, :past], inputs["past_key"])
    assert torch.equal(present_value[:, :, :past], inputs["past_value"])
    assert torch.equal(present_value[:, :, past:], inputs["value"].view(batch, new, kv_heads, size).transpose(1, 2))


def test_mask_holes_are_skipped_and_take_no_position() -> None:
    inputs = case(1, 4, 5, 2, 1, 4, (0,))
    inputs["attention_mask"][0, [2, 6]] = 0
    output, _, _ = causal_attention(**inputs)
    np.testing.assert_allclose(output.numpy(), by_definition(inputs, -1, 0.0), rtol=0, atol=1e-13)


def test_what_invisible_slots_hold_has_no_influence() -> None:
    inputs = case(2, 4, 6, 4, 2, 6, (7, 0))
    clean, _, _ = causal_attention(**inputs, window=5)
    poisoned = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    for name in ("past_key", "past_value"):
        poisoned[name][0] = torch.nan  # Six padded slots.
        poisoned[name][1, :, :2] = torch.nan  # Out of every query's window: the first sees slots 2 to 6.
    for name in ("query", "key", "value"):
        poisoned[name][0, 0] = torch.nan  # A padded new token may spoil its own row only.
    output, _, _ = causal_attention(**poisoned, window=5)
    assert output[0, 0].isnan().all()
    assert torch.equal(output[0, 1:], clean[0, 1:])
    assert torch.equal(output[1], clean[1])


def test_a_visible_slot_has_influence() -> None:
    """The control of the test above: the same poison one slot further on is seen."""
    inputs = case(1, 4, 6, 4, 2, 6, (0,))
    inputs["past_value"][0, :, 2] = torch.nan
    output, _, _ = causal_attention(**inputs, window=5)
    assert output[0, 0].isnan().all()


@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 5), (8, 1), (2, 3, 4)])
@pytest.mark.parametrize("window", [-1, 3])
def test_pieces_equal_the_whole(pieces: tuple[int, ...], window: int) -> None:
    inputs = case(2, 9, 0, 6, 3, 4, (0, 4))
    whole, whole_key, whole_value = causal_attention(**inputs, window=window)
    key, value, outputs, start = inputs["past_key"], inputs["past_value"], [], 0
    for length in pieces:
        piece = dict(inputs, past_key=key, past_value=value)
        piece |= {name: inputs[name][:, start : start + length] for name in ("query", "key", "value")}
        piece["attention_mask"] = inputs["attention_mask"][:, : start + length]
        output, key, value = causal_attention(**piece, window=window)
        outputs.append(output)
        start += length
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(key, whole_key, rtol=0, atol=1e-15)
    assert torch.equal(value, whole_value)


def test_left_padding_changes_nothing() -> None:
    inputs = case(1, 5, 0, 4, 2, 6, (0,))
    plain, _, _ = causal_attention(**inputs)
    padded = dict(inputs)
    for name in ("query", "key", "value"):
        padded[name] = torch.nn.functional.pad(inputs[name], (0, 0, 3, 0), value=7.0)
    padded["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (3, 0))
    output, _, _ = causal_attention(**padded)
    torch.testing.assert_close(output[:, 3:], plain, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shift", [1, 17, 40])
def test_scores_depend_on_the_distance_only(shift: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=generator)
    positions = torch.arange(POSITIONS, dtype=torch.float64)[:, None]
    frequencies = 100.0 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    cos, sin = (positions * frequencies).cos(), (positions * frequencies).sin()

    def score(at_query: int, at_key: int) -> torch.Tensor:
        rotated_query = rotate(query, cos[None, at_query, None], sin[None, at_query, None])
        return (rotated_query * rotate(key, cos[None, at_key, None], sin[None, at_key, None])).sum()

    torch.testing.assert_close(score(13 + shift, 5 + shift), score(13, 5), rtol=0, atol=1e-13)
    assert (score(13 + shift, 5) - score(13, 5)).abs() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_dtypes_compute_in_float32(dtype: torch.dtype) -> None:
    inputs = case(2, 3, 5, 6, 2, 8, (0, 2))
    low = {
        name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
    low["cos"], low["sin"] = inputs["cos"].float(), inputs["sin"].float()
    exact = {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in low.items()
    }
    output, present_key, present_value = causal_attention(**low)
    expected, _, _ = causal_attention(**exact)
    assert output.dtype == present_key.dtype == present_value.dtype == dtype
    # New keys are rounded to the storage type on their way into the cache; all else is float32.
    tolerance = 4 * torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("ignore:.*(axis name|LeafSpec):")
def test_a_trace_contains_one_node() -> None:
    class Module(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return causal_attention(*tensors, num_heads=6, kv_heads=2, scale=0.25, window=7, softcap=3.0)

    inputs = case(2, 3, 5, 6, 2, 8, (0, 0))
    tensors = tuple(value.float() if value.is_floating_point() else value for value in list(inputs.values())[:8])
    batch, new, past, total = (torch.export.Dim(name) for name in ("batch", "new", "past", "total"))
    token, cache = {0: batch, 1: new}, {0: batch, 2: past}
    shapes = ((token, token, token, cache, cache, {0: batch, 1: total}, None, None),)
    program = torch.onnx.export(
        Module().eval(), tensors, dynamo=True, opset_version=23, dynamic_shapes=shapes, optimize=False, verbose=False
    )
    assert program is not None
    graph = program.model.graph
    (node,) = list(graph)
    assert (node.domain, node.op_type, program.model.opset_imports["edgekit"]) == ("edgekit", "CausalAttention", 1)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    assert attributes == {"num_heads": 6, "kv_heads": 2, "scale": 0.25, "window": 7, "softcap": 3.0}
    assert [value.name for value in node.inputs] == [value.name for value in graph.inputs]
    output, *present = node.outputs
    assert [str(size) for size in output.shape] == ["batch", "new", "48"]
    for cache in present:
        assert [str(size) for size in cache.shape[:2]] + [cache.shape[3]] == ["batch", "2", 8]
        assert set(str(cache.shape[2]).split(" + ")) == {"new", "past"}
