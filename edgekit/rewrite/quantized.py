"""The constants that a quantised matrix becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from edgekit.rewrite.rule import Context
from edgekit.rewrite.weights import Weight


def stackable(weights: Sequence[Weight], context: Context) -> bool:
    """Whether the rows of these weights may stand in one matrix: none is quantised, or all are alike."""
    if context.quantized is None:
        return True
    alone = [context.quantized.matrix(weight.sources) if weight.sources else None for weight in weights]
    if all(matrix is None for matrix in alone):
        return True
    return context.quantized.matrix(tuple(source for weight in weights for source in weight.sources)) is not None


@dataclass(frozen=True)
class QuantizedParts:
    """Codes, scales and zero points of one matrix [outputs, inputs], as deferred constants.

    The same matrix gives constants with the same keys, so that an embedding and the head it is tied to are stored once.
    """

    matrix: Any
    sources: tuple[str, ...]
    dtype: str
    #: whether the input must carry the sum of each of its blocks behind its own values.
    block_sums: bool = False

    @classmethod
    def of(cls, weight: Weight, context: Context) -> QuantizedParts | None:
        """The quantised form of a weight, or None if it has none."""
        matrix = context.quantized.matrix(weight.sources) if context.quantized is not None and weight.sources else None
        if matrix is None:
            return None
        if matrix.offsets is None:
            return cls(matrix, weight.sources, context.dtype)
        return cls(matrix.with_offset_columns(), weight.sources, context.dtype, block_sums=True)

    @property
    def bits(self) -> int:
        return int(self.matrix.bits)

    @property
    def inputs(self) -> int:
        return int(self.matrix.inputs)

    @property
    def outputs(self) -> int:
        return int(self.matrix.codes.shape[0])

    @property
    def block(self) -> int:
        return int(self.matrix.codes.shape[2])

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is the middle code, which kernels assume when none are given."""
        return bool((self.matrix.zero_points == 2 ** (self.bits - 1)).all())

    @property
    def per_output(self) -> bool:
        """Whether each output has one scale for all of its inputs."""
        return self.bits == 8 and self.block == self.inputs and self.matrix.codes.shape[1] == 1

    def codes(self, flat: bool = False) -> Weight:
        """uint8 [outputs, blocks, block · bits/8], or [outputs, blocks · block · bits/8]."""
        packed = self.matrix.packed_codes()
        shape = (len(packed), packed.shape[1] * packed.shape[2]) if flat else packed.shape
        return Weight(shape, np.uint8, lambda: self.matrix.packed_codes().reshape(shape), ("codes", self.sources))

    def scales(self) -> Weight:
        """Activations' dtype, [outputs, blocks]."""
        shape = self.matrix.scales.shape
        return Weight(shape, self.dtype, lambda: self.matrix.scales.astype(self.dtype), ("scales", self.sources))

    def zero_points(self) -> Weight:
        """uint8 [outputs, ⌈blocks · bits/8⌉]."""
        packed = self.matrix.packed_zero_points()
        return Weight(packed.shape, np.uint8, self.matrix.packed_zero_points, ("zero points", self.sources))

    def signed_codes(self) -> Weight:
        """int4 or int8 [blocks · block, outputs], codes minus the middle: the blocked form of DequantizeLinear."""
        integer = np.dtype(ml_dtypes.int4) if self.bits == 4 else np.dtype(np.int8)
        width = self.matrix.codes.shape[1] * self.block

        def make() -> Any:
            signed = self.matrix.codes.astype(np.int16) - 2 ** (self.bits - 1)
            return np.ascontiguousarray(signed.reshape(self.outputs, width).T).astype(integer)

        return Weight((width, self.outputs), integer, make, ("signed codes", self.sources))

    def signed_rows(self) -> Weight:
        """int8 [outputs, inputs], codes minus the middle, as the checkpoint has the matrix."""
        codes = self.signed_codes().transposed()
        codes.key = ("signed rows", self.sources)
        return codes

    def output_scales(self) -> Weight:
        """Activations' dtype, [outputs], of codes with one scale per output."""
        return Weight(
            (self.outputs,),
            self.dtype,
            lambda: self.matrix.scales[:, 0].astype(self.dtype),
            ("output scales", self.sources),
        )

    def transposed_scales(self) -> Weight:
        """Activations' dtype, [blocks, outputs]."""
        shape = self.matrix.scales.shape[::-1]
        return Weight(
            shape,
            self.dtype,
            lambda: np.ascontiguousarray(self.matrix.scales.T).astype(self.dtype),
            ("transposed scales", self.sources),
        )
