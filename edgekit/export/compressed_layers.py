"""How the matrices of a compressed checkpoint are exported: in the numbers in which they are stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.compressed import CompressedCheckpoint
from edgekit.compress.blockwise import BlockQuantized
from edgekit.compress.layerwise.stack import layer_of
from edgekit.compress.quantizer import QuantizedModel
from edgekit.compress.saten.compressed import CompressedMatrix
from edgekit.compress.saten.operator import operator_inputs
from edgekit.compress.saten.pieces import Base
from edgekit.contract import FORM_JETPACK6, FORM_PORTABLE
from edgekit.errors import ExportError
from edgekit.export.base_choice import symmetric, why_products
from edgekit.export.options import BASE_AUTO, BASE_PRODUCTS, BLOCK_SIZES, TENSORRT_BLOCK_SIZES, ExportOptions
from edgekit.layers.compressed_linear import CompressedLinear
from edgekit.rewrite.rule import Outcome, Refusal
from edgekit.rewrite.weights import Array, Weight

#: Bits of codes that products read; others are widened to the next, which changes no value.
_WIDTHS = (2, 4, 8)


@dataclass(frozen=True)
class Correction:
    """The operator of one matrix: its attributes, and the shape and dtype of each operand but x."""

    attributes: dict[str, Any]
    operands: dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class CompressedLayers:
    """The compressed matrices of a checkpoint; none for other checkpoints.

    Attributes:
        bases: names of matrices whose base is a product's.
        corrections: weight -> the operator that multiplies by all else of it, or by all of it.
        choices: how many bases of layers are read by the operator, and why others are not.
    """

    checkpoint: CompressedCheckpoint | None = None
    bases: frozenset[str] = frozenset()
    corrections: dict[str, Correction] = field(default_factory=dict)
    choices: Outcome = field(default_factory=Outcome)

    @property
    def names(self) -> set[str]:
        """Of all of them."""
        return {*self.bases, *self.corrections}

    @property
    def without_base(self) -> int:
        """How many matrices are no constant of a product."""
        return len(self.corrections.keys() - self.bases)

    def of_bases(self) -> dict[str, dict[str, Any]]:
        """For the manifest, beside the rules: which bases the operator reads, and why others are products."""
        if not (self.choices.fired or self.choices.refused):
            return {}
        names = sorted(name for name, each in self.corrections.items() if each.attributes["base_bits"])
        return {"base_in_operator": self.choices.to_dict() | {"matrices": names}}

    def place(self, model: nn.Module) -> None:
        """Put a `CompressedLinear` where a matrix has a correction."""
        for name, correction in self.corrections.items():
            owner, _, last = name.removesuffix(".weight").rpartition(".")
            parent = model.get_submodule(owner)
            linear = getattr(parent, last)
            assert isinstance(linear, nn.Linear), name
            setattr(parent, last, CompressedLinear(linear, name in self.bases, *_parts(correction)))

    def constants(self) -> dict[str, Weight]:
        """Constants of the traced graph by name: the operators' operands, and the values of bases."""
        found = {}
        for name, correction in self.corrections.items():
            scope = name.removesuffix(".weight")
            for operand, (shape, dtype) in correction.operands.items():
                key = f"{scope}.{operand}"
                found[key] = Weight(shape, dtype, self._operand(name, operand), ("compressed", key))
        for name in self.bases:
            rows, columns = self._record(name)["shape"]
            weight = Weight((rows, columns), np.float32, self._base_values(name), ("base", name))
            weight.sources = (name,)
            found[name] = weight
        return found

    def add_bases(self, quantized: QuantizedModel | None, options: ExportOptions) -> None:
        """Carry the bases' codes over.

        Raises:
            ExportError: the export's form or dtype has no place for them.
        """
        fitted = sorted(name for name in self.bases if layer_of(name) is not None)
        if not self.bases:
            return
        if quantized is None:
            if fitted:
                raise ExportError(
                    "codes of a compressed checkpoint are exported as codes",
                    f"--dtype {options.dtype} was asked for, and {len(fitted)} matrices have a base of few bits",
                    "give --dtype int8, which says how everything else is stored; or export it in a form other than "
                    "portable with --base operator, which reads 2, 3 or 4 bits",
                )
            return
        if fitted and options.form == FORM_JETPACK6:
            raise ExportError(
                f"the form {options.form} has no codes with a scale per block",
                f"{len(fitted)} matrices have a base of them",
                "leave out --base products, or compress the model with --base-bits 2, 3 or 4: plugins read those",
            )
        for name in sorted(self.bases):
            base = self.base(name)
            if quantized.settings.symmetric and not symmetric(base, options):
                blocks = TENSORRT_BLOCK_SIZES if options.for_tensorrt else BLOCK_SIZES
                bits = "of 4 bits " if options.for_tensorrt else ""
                others = (
                    "base-bits 2, 3 or 4, which plugins read" if options.for_tensorrt else "symmetric --base-bits 4"
                )
                raise ExportError(
                    f"products of the form {options.form} have codes {bits}without zero points, in whole blocks of "
                    f"{' or '.join(map(str, blocks))} inputs",
                    f"those of {name} are others",
                    f"{'leave out --base products, ' if options.base == BASE_PRODUCTS else ''}export it in the ort "
                    f"form, or compress the model with --{others}",
                )
            quantized.matrices[name] = base
            quantized.origin[name] = "as compressed"

    def base(self, name: str) -> BlockQuantized:
        """A base in a width and in blocks that products read: those of ONNX Runtime want a power of two of inputs."""
        (found,) = [piece.quantized for piece in self._matrix(name).pieces if isinstance(piece, Base)]
        bits, block = next(width for width in _WIDTHS if width >= found.bits), found.codes.shape[2]
        return replace(found.in_smaller_blocks(block & -block), bits=bits)

    def _record(self, name: str) -> dict[str, Any]:
        assert self.checkpoint is not None
        return self.checkpoint.records[name]

    def _matrix(self, name: str) -> CompressedMatrix:
        assert self.checkpoint is not None
        return self.checkpoint.matrix(name)

    def _operand(self, name: str, operand: str) -> Any:
        def load() -> Array:
            array: Array = operator_inputs(self._matrix(name), base=name not in self.bases)[1][operand]
            return array

        return load

    def _base_values(self, name: str) -> Any:
        return lambda: self.base(name).dequantized()


def compressed_layers(checkpoint: Checkpoint, options: ExportOptions) -> CompressedLayers:
    """What a checkpoint stores compressed. For TensorRT without tables of embeddings and heads, which must have a scale
    per output there, and are rounded anew.

    Raises:
        ExportError: a matrix that no operator multiplies by as it is stored, or a choice for bases that are not there.
    """
    if not isinstance(checkpoint, CompressedCheckpoint):
        if options.base != BASE_AUTO:
            raise ExportError(
                "--base says what multiplies by a compressed checkpoint's codes",
                f"{checkpoint.path} is not compressed",
                "leave it out, or compress the checkpoint first: edgekit compress",
            )
        return CompressedLayers()
    bases, corrections, choices = set(), {}, Outcome()
    for name, record in checkpoint.records.items():
        kinds = {piece["kind"] for piece in record["pieces"]}
        if options.for_tensorrt and layer_of(name) is None:
            continue
        own = Base.KIND in kinds
        if own and layer_of(name) is not None and options.form != FORM_PORTABLE:
            reason = why_products(checkpoint.matrix(name), options)
            own = reason is not None
            choices.fired += not own
            if reason is not None:
                choices.refused.append(Refusal(name, reason))
        if own:
            bases.add(name)
        if not own or kinds - {Base.KIND}:
            attributes, operands = operator_inputs(checkpoint.matrix(name), base=not own)
            shapes = {operand: (array.shape, array.dtype.name) for operand, array in operands.items()}
            corrections[name] = Correction(dict(attributes), shapes)
    return CompressedLayers(checkpoint, frozenset(bases), corrections, choices)


def _parts(correction: Correction) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], str]]]:
    return correction.attributes, correction.operands
