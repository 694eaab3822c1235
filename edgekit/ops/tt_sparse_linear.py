"""A base of few bits, a contracted tensor train and a sparse residual, as one operator.

See `edgekit.ops.specs.tt_sparse_linear`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgekit.ops.spec import Attributes
from edgekit.ops.specs.tt_sparse_linear import BITMAP, CHUNK, CODES, COLUMNS, GROUP, SPEC, TILE
from edgekit.ops.torch_op import register, symbolic

__all__ = ["OP", "SPEC", "operands", "reference", "tt_sparse_linear"]

_TENSORS = tuple(operand.name for operand in SPEC.inputs)
#: Whether an operand is there.
_FLAGS = {"low_rank": "a", "bias": "bias", "zero_points": "base_zeros"}
_INTEGERS = tuple(a.name for a in SPEC.attributes if a.kind == "int" and a.name not in _FLAGS)


def tt_sparse_linear(attributes: Attributes, inputs: Mapping[str, Tensor]) -> Tensor:
    """y = x Qᵀ + x Aᵀ B + x Sᵀ + bias; half precision is summed in float32.

    Args:
        attributes: of the operator; those with a fixed value may be left out.
        inputs: the operands by name; gradients reach x, bias, and factors and values that are no codes.

    Returns:
        y [B, S, O].
    """
    attributes = SPEC.complete(attributes)
    if torch.onnx.is_in_onnx_export():
        return symbolic(SPEC, attributes, inputs)["y"]
    return reference(attributes, inputs)["y"]


def reference(attributes: Attributes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The operator by the names of its operands."""
    x = inputs["x"]
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide, outputs = x.to(compute), int(attributes["out_features"])
    y = wide.new_zeros(*x.shape[:-1], outputs)
    if attributes["base_bits"]:
        y = y + wide @ base_matrix(attributes, inputs, x.shape[-1], compute).T
    if attributes["low_rank"]:
        rank = int(attributes["rank"])
        a, b = (
            _numbers(attributes, "factor", inputs[name], inputs.get(f"{name}_scales"), rank * side, compute)
            for name, side in (("a", x.shape[-1]), ("b", outputs))
        )
        y = y + (wide @ a.reshape(rank, -1).T) @ b.reshape(rank, -1)
    if attributes["residual"]:
        count = int(attributes["entries"])
        values = _numbers(attributes, "value", inputs["values"], inputs.get("value_scales"), count, compute)
        places = _places(attributes, inputs, outputs, x.shape[-1])
        flat = wide.new_zeros(outputs * x.shape[-1]).scatter(0, places, values)
        y = y + wide @ flat.reshape(outputs, -1).T
    if attributes["bias"]:
        y = y + inputs["bias"].to(compute)
    return {"y": y.to(x.dtype)}


def operands(*arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and inputs by name, from the arguments of `OP`."""
    given = dict(zip(_TENSORS, arguments[: len(_TENSORS)], strict=True))
    integers = dict(zip(_INTEGERS, arguments[len(_TENSORS) :], strict=True))
    flags = {flag: int(given[name] is not None) for flag, name in _FLAGS.items()}
    return SPEC.complete(integers | flags), {name: value for name, value in given.items() if value is not None}


def base_matrix(attributes: Attributes, inputs: Mapping[str, Tensor], width: int, compute: torch.dtype) -> Tensor:
    """[O, K] that codes, scales and zero points of the base stand for."""
    bits, block, outputs = (int(attributes[name]) for name in ("base_bits", "base_block", "out_features"))
    tiles, blocks = -(-outputs // TILE), -(-width // block)
    words = inputs["base"].long().reshape(tiles, blocks * block // CHUNK, bits, TILE)
    codes = _base_codes(words, bits).reshape(tiles * TILE, blocks, block)
    zeros: Tensor | int = 2 ** (bits - 1)
    if attributes["zero_points"]:
        planes = unpacked(inputs["base_zeros"], 1, tiles * blocks * bits * TILE).reshape(tiles, blocks, bits, TILE)
        of_bits = 2 ** torch.arange(bits, device=planes.device)
        zeros = (planes * of_bits[:, None]).sum(2).transpose(1, 2).reshape(tiles * TILE, blocks, 1)
    scales = inputs["base_scales"].to(compute).reshape(tiles, blocks, TILE).transpose(1, 2).reshape(-1, blocks, 1)
    dense = (codes - zeros).to(compute) * scales
    found: Tensor = dense.reshape(tiles * TILE, -1)[:outputs, :width]
    return found


def _base_codes(words: Tensor, bits: int) -> Tensor:
    """int64 [tiles, TILE, chunks, CHUNK] of words int64 [tiles, chunks, bits, TILE]."""

    def fields(of: Tensor, *places: int) -> Tensor:
        """[tiles, TILE, chunks, words × fields × bytes], of fields that begin at these bits of every byte."""
        shifts = torch.tensor([8 * byte + place for place in places for byte in range(4)], device=of.device)
        found: Tensor = (of[..., None] >> shifts).permute(0, 3, 1, 2, 4).flatten(3)
        return found

    if bits != 3:
        whole: Tensor = fields(words, *range(0, 8, bits)) & (2**bits - 1)
        return whole
    lower, third = fields(words[:, :, :2], 6) & 3, fields(words[:, :, 2:], 6, 7) & 1
    codes: Tensor = torch.cat((fields(words, 0, 3) & 7, lower + 4 * third), dim=-1)
    return codes


def unpacked(words: Tensor, bits: int, count: int) -> Tensor:
    """int64 [count] from int32 words of codes of 1, 2, 4, 8 or 16 bits, the lowest first."""
    shifts = torch.arange(0, 32, bits, device=words.device)
    codes: Tensor = (words.long()[:, None] >> shifts) & (2**bits - 1)
    return codes.flatten()[:count]


def _numbers(
    attributes: Attributes, what: str, array: Tensor, scales: Tensor | None, count: int, compute: torch.dtype
) -> Tensor:
    """[count], in the type of the sums."""
    bits = int(attributes[f"{what}_bits"])
    if bits not in CODES:
        return array.to(compute).flatten()
    assert scales is not None
    block = int(attributes[f"{what}_block"])
    centred = unpacked(array, bits, count).to(compute) - 2 ** (bits - 1)
    numbers: Tensor = centred * scales.to(compute).repeat_interleave(block)[:count]
    return numbers


def _places(attributes: Attributes, inputs: Mapping[str, Tensor], outputs: int, width: int) -> Tensor:
    """Where each entry stands in the flattened residual, int64 [E]."""
    words, count = inputs["positions"], int(attributes["entries"])
    number = torch.arange(count, device=words.device)
    if attributes["residual"] == COLUMNS:
        rows = torch.searchsorted(inputs["starts"].long().contiguous(), number, right=True) - 1
        return rows * width + unpacked(words, 16, count)
    if attributes["residual"] == BITMAP:
        found: Tensor = unpacked(words, 1, outputs * width).nonzero().flatten()
        return found
    return number // int(attributes["group_kept"]) * GROUP + unpacked(words, 2, count)


def _schema() -> str:
    tensors = ", ".join(f"Tensor{'' if name == 'x' else '?'} {name}" for name in _TENSORS)
    return f"({tensors}, {', '.join(f'int {name}' for name in _INTEGERS)}) -> Tensor[]"


#: `torch.ops.edgekit.tt_sparse_linear`.
OP = register(SPEC, _schema(), lambda *arguments: [reference(*operands(*arguments))["y"]], operands)
