"""From a specification to PyTorch: the node of a trace, the torch.library operator and its ONNX translation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.shapes import evaluate
from edgekit.ops.spec import GENERIC, Attributes, Form, OpSpec


def symbolic(spec: OpSpec, attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One node of the traced graph, with the shapes of its outputs declared; caches grow."""
    outputs = spec.active_outputs(attributes)
    made = torch.onnx.ops.symbolic_multi_out(
        f"{spec.domain}::{spec.name}",
        tuple(inputs[operand.name] for operand in spec.active_inputs(attributes)),
        dict(attributes),
        dtypes=tuple(_generic(spec, inputs).dtype for _ in outputs),
        shapes=tuple(_shapes(spec, attributes, inputs)),
        version=spec.version,
    )
    return {operand.name: tensor for operand, tensor in zip(outputs, made, strict=True)}


def register(
    spec: OpSpec,
    schema: str,
    outputs: Callable[..., Sequence[Tensor]],
    operands: Callable[..., tuple[dict[str, Any], dict[str, Tensor]]],
) -> Any:
    """Register `torch.ops.edgekit.<stem>`: the reference, its shapes for tracing, and its gradient.

    Args:
        schema: arguments and result as torch.library writes them; the result is always `Tensor[]`.
        outputs: the reference, with the arguments of the schema; gives new tensors.
        operands: from the arguments of the schema, the node's attributes and its inputs by name.
    """

    def fake(*arguments: Any) -> list[Tensor]:
        attributes, inputs = operands(*arguments)
        like = _generic(spec, inputs)
        return [like.new_empty(shape) for shape in _shapes(spec, attributes, inputs)]

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.arguments = inputs

    def backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
        """By running the reference again: what is saved is the arguments alone."""
        arguments, leaves = _detached(ctx.arguments)
        with torch.enable_grad():
            results = outputs(*arguments)
        pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None and r.requires_grad]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        if not pairs or not wanted:
            return tuple([None] * len(v) if isinstance(v, list) else None for v in ctx.arguments)
        roots, weights = [r for r, _ in pairs], [g for _, g in pairs]
        found = torch.autograd.grad(roots, wanted, weights, allow_unused=True)
        by_leaf = {id(leaf): gradient for leaf, gradient in zip(wanted, found, strict=True)}
        return tuple(
            [by_leaf.get(id(x)) for x in value] if isinstance(value, list) else by_leaf.get(id(value))
            for value in arguments
        )

    def run(*arguments: Any) -> list[Tensor]:
        return [output.contiguous() for output in outputs(*arguments)]

    op = torch.library.custom_op(f"{spec.domain}::{spec.stem}", run, mutates_args=(), schema=schema)
    op.register_fake(fake)
    op.register_autograd(backward, setup_context=keep)
    return op


def _detached(arguments: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """Copies that start a graph of their own, and all tensors among them."""
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        leaves.append(tensor.detach().requires_grad_(tensor.requires_grad))
        return leaves[-1]

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return leaf(value)
        return [leaf(x) for x in value] if isinstance(value, list) else value

    return [copied(value) for value in arguments], leaves


def _generic(spec: OpSpec, inputs: Mapping[str, Tensor]) -> Tensor:
    """An input whose element type is the graph's."""
    return next(inputs[o.name] for o in spec.inputs if o.dtype == GENERIC and o.name in inputs)


def _shapes(spec: OpSpec, attributes: Attributes, inputs: Mapping[str, Tensor]) -> list[tuple[Any, ...]]:
    """Shapes of the outputs; sizes may be symbolic, so nothing is compared."""
    sizes: dict[str, Any] = {a.axis: attributes[a.name] for a in spec.attributes if a.axis}
    for operand in spec.active_inputs(attributes):
        for letter, size in zip(_form(operand.form(attributes)).dims, inputs[operand.name].shape, strict=True):
            if letter.isidentifier():
                sizes.setdefault(letter, size)
    if "P" in sizes:
        sizes["N"] = sizes["P"] + sizes["S"]
    return [
        tuple(sizes[dim] if dim in sizes else evaluate(dim, sizes) for dim in _form(operand.form(attributes)).dims)
        for operand in spec.active_outputs(attributes)
    ]


def _form(form: Form | None) -> Form:
    assert form is not None
    return form
