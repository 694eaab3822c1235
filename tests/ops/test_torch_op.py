"""The operators in PyTorch: nodes of a trace, torch.library operators, gradients, and their ONNX translation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.ops.registry import operator
from edgekit.ops.spec import Case
from edgekit.ops.tpa_append import tpa_append
from edgekit.ops.tpa_attention import SPEC, tpa_attention
from edgekit.ops.translate import translation_table
from tests.ops.arrays import tensor_from_array

CASES = {case.name: case for case in SPEC.cases()}
VARIANTS = ["variant-111-decode-131", "variant-011-decode-131", "variant-100-decode-131", "variant-000-decode-131"]


def positional(case: Case, dtype: str, *, gradients: bool = False) -> list[Any]:
    """The arguments of `torch.ops.edgekit.tpa_attention`; padding is dropped, so that nothing is NaN."""
    inputs = {name: tensor_from_array(array) for name, array in case.inputs(dtype).items()}
    inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    for name, tensor in inputs.items():
        if tensor.is_floating_point():
            inputs[name] = tensor.nan_to_num(0.25).requires_grad_(gradients and name not in ("cos", "sin"))
    past = [inputs.pop(name) for name in list(inputs) if name.startswith("past_")]
    a_q = inputs.pop("a_q", None)
    names = ("b_q", "a_k", "b_k", "a_v", "b_v")
    rest = [inputs[name] for name in ("attention_mask", "cos", "sin", "frequencies")]
    scales = [case.attributes["scale"], case.attributes["value_scale"]]
    return [a_q, *(inputs[name] for name in names), past, *rest, *scales]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["variant-111-decode-131", pytest.param("variant-000-prefill-70", marks=pytest.mark.slow)]
)
def test_the_library_operator_keeps_its_promises(name: str) -> None:
    """Schema, fake, autograd registration and tracing with symbolic sizes, by torch's own check."""
    arguments = positional(CASES[name], "float64", gradients=True)
    torch.library.opcheck(torch.ops.edgekit.tpa_attention.default, tuple(arguments))


def test_the_append_operator_keeps_its_promises() -> None:
    past, new = torch.randn(2, 5, 3, 4, requires_grad=True), torch.randn(2, 2, 3, 4, requires_grad=True)
    mask = torch.ones(2, 7, dtype=torch.int64)
    torch.library.opcheck(torch.ops.edgekit.tpa_append.default, (past, new, mask))
    assert torch.equal(torch.ops.edgekit.tpa_append(past, new, mask)[0], tpa_append(past, new, mask))


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_of_the_operator_are_those_of_the_reference(name: str) -> None:
    arguments = positional(CASES[name], "float64", gradients=True)
    leaves = [x for x in (*arguments[:6], *arguments[6]) if isinstance(x, Tensor)]
    *tensors, scale, value_scale = arguments
    output, present = tpa_attention(*tensors, scale=scale, value_scale=value_scale)
    results = torch.ops.edgekit.tpa_attention(*arguments)

    def gradients(outputs: list[Tensor]) -> tuple[Tensor, ...]:
        weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x) for x in outputs]
        return torch.autograd.grad(outputs, leaves, weights)

    for mine, reference in zip(gradients(results), gradients([output, *present]), strict=True):
        assert reference.abs().max() > 1e-3
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


def test_gradients_of_the_reference_are_right() -> None:
    arguments = positional(CASES["decode-37-61-heads"], "float64")
    generator = torch.Generator().manual_seed(0)
    small = [
        torch.randn(1, 2, 2, 3, dtype=torch.float64, generator=generator),
        torch.randn(1, 2, 2, 4, dtype=torch.float64, generator=generator),
        torch.randn(1, 2, 1, 3, dtype=torch.float64, generator=generator),
        torch.randn(1, 2, 1, 4, dtype=torch.float64, generator=generator),
        torch.randn(1, 2, 2, 3, dtype=torch.float64, generator=generator),
        torch.randn(1, 2, 2, 5, dtype=torch.float64, generator=generator),
    ]
    past = tuple(x[:, :1].clone() for x in small[2:])
    mask = torch.tensor([[1, 1, 1]])
    tables = arguments[8][:, :2], arguments[9][:, :2], torch.tensor([0, 1])

    def attend(*factors: Tensor) -> Tensor:
        return tpa_attention(*factors[:6], factors[6:], mask, *tables, scale=0.5, value_scale=0.5)[0]

    leaves = [x.requires_grad_() for x in (*small, *past)]
    assert torch.autograd.gradcheck(attend, leaves)


class Direct(torch.nn.Module):
    """Calls the function, which is a node while exporting."""

    def forward(self, *x: Tensor) -> Any:
        a_q, b_q, a_k, b_k, a_v, b_v, p0, p1, p2, *rest = x
        output, present = tpa_attention(a_q, b_q, a_k, b_k, a_v, b_v, (p0, p1, p2), *rest, scale=0.5, value_scale=0.25)
        return output, *present


class Library(torch.nn.Module):
    """Calls the torch.library operator."""

    def forward(self, *x: Tensor) -> Any:
        a_q, b_q, a_k, b_k, a_v, b_v, p0, p1, p2, *rest = x
        return torch.ops.edgekit.tpa_attention(a_q, b_q, a_k, b_k, a_v, b_v, [p0, p1, p2], *rest, 0.5, 0.25)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", [Direct, Library])
def test_a_trace_contains_one_node(module: type[torch.nn.Module]) -> None:
    spec = operator("TPAAttention")
    case = CASES["variant-110-prefill-70"]
    arguments = positional(CASES["variant-110-decode-131"], "float32")
    tensors = [torch.cat((x, x), 1) if i in (0, 1, 2, 3, 5) else x for i, x in enumerate(arguments[:6])]
    mask = torch.ones(2, 132, dtype=torch.int64)
    given = (*tensors, *arguments[6], mask, *arguments[8:11])
    batch, new, past, total = (torch.export.Dim(name) for name in ("batch", "new", "past", "total"))
    row, cache = {0: batch, 1: new}, {0: batch, 1: past}
    shapes = ((row, row, row, row, None, row, cache, cache, cache, {0: batch, 1: total}, None, None, None),)
    program = torch.onnx.export(
        module().eval(), given, dynamo=True, opset_version=23, dynamic_shapes=shapes, optimize=False, verbose=False,
        custom_translation_table=translation_table(),
    )  # fmt: skip
    assert program is not None
    graph = program.model.graph
    (node,) = list(graph)
    assert (node.domain, node.op_type, program.model.opset_imports["edgekit"]) == ("edgekit", "TPAAttention", 1)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    assert attributes == spec.complete(case.attributes | {"scale": 0.5, "value_scale": 0.25})
    assert [value.name for value in node.inputs] == [value.name for value in graph.inputs]
    assert len(node.outputs) == len(spec.active_outputs(attributes)) == 4
    assert [str(size) for size in node.outputs[0].shape] == ["batch", "new", "11", "8"]
    for present, width in zip(node.outputs[1:], (11, 6, 8), strict=True):
        assert [str(present.shape[0]), str(present.shape[3])] == ["batch", str(width)]
        assert set(str(present.shape[1]).split(" + ")) == {"new", "past"}
