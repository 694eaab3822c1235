"""Block quantisation of matrices: w ≈ scale · (code − zero_point) [+ offset], one scale per block of inputs.

Scales are not taken from the largest magnitude alone: several ranges are tried for each block and each is refined by
least squares; the one with the smallest weighted squared error wins (the search that llama.cpp calls make_qkx).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

#: Fractions of a block's full range that are tried as the range of its codes.
RANGES = {
    2: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    3: (1.0, 0.9, 0.85, 0.8, 0.75, 0.7),
    4: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75),
    8: (1.0,),
}

#: The smallest float16 above zero: no positive scale may round to nothing.
SMALLEST_SCALE = np.float32(2**-24)

_ROWS_PER_TASK = 256
#: Weights for which it pays to start threads.
_LEAST_FOR_THREADS = 1 << 20


@dataclass(frozen=True)
class BlockQuantized:
    """A quantised matrix [N out, K in]; K is padded with zeros to a whole number of blocks.

    Attributes:
        codes: uint8 [N, K/block, block], 0 … 2^bits − 1, one code per byte.
        scales: float32 [N, K/block].
        zero_points: uint8 [N, K/block]: the code that means 0.
        bits: 2, 3, 4 or 8.
        inputs: K before padding.
        offsets: float32 [N, K/block], added to every weight of a block; None for none. Formats with a real minimum
            per block (Q4_1) need them: their minimum is no multiple of the scale.
    """

    codes: Codes
    scales: Floats
    zero_points: Codes
    bits: int
    inputs: int
    offsets: Floats | None = None

    def dequantized(self) -> Floats:
        """The matrix that the codes stand for: float32 [N, K]."""
        centred = self.codes.astype(np.float32) - self.zero_points[..., None].astype(np.float32)
        values = centred * self.scales[..., None]
        if self.offsets is not None:
            values += self.offsets[..., None]
        return np.ascontiguousarray(values.reshape(len(values), -1)[:, : self.inputs])

    def packed_codes(self) -> Codes:
        """Codes as kernels read them: uint8 [N, K/block, block · bits/8], the first code in the lowest bits.

        Raises:
            ValueError: 3 bits, which no byte holds a whole number of.
        """
        per_byte = self._per_byte()
        groups = self.codes.reshape(*self.codes.shape[:-1], -1, per_byte)
        return _packed(groups, self.bits)

    def packed_zero_points(self) -> Codes:
        """Zero points packed along a row: uint8 [N, ⌈K/block · bits/8⌉]."""
        per_byte = self._per_byte()
        padded = np.pad(self.zero_points, ((0, 0), (0, -self.zero_points.shape[1] % per_byte)))
        return _packed(padded.reshape(len(padded), -1, per_byte), self.bits)

    def _per_byte(self) -> int:
        if 8 % self.bits:
            raise ValueError(f"codes of {self.bits} bits do not fill bytes")
        return 8 // self.bits

    def rows(self, start: int, end: int) -> BlockQuantized:
        """The outputs start … end − 1."""
        part = slice(start, end)
        offsets = self.offsets[part] if self.offsets is not None else None
        codes, scales, zeros = self.codes[part], self.scales[part], self.zero_points[part]
        return BlockQuantized(codes, scales, zeros, self.bits, self.inputs, offsets)

    def in_smaller_blocks(self, size: int) -> BlockQuantized:
        """The same values with each block cut into some of `size` inputs, which all have its scale and zero point.

        Raises:
            ValueError: blocks are no multiple of that.
        """
        parts, rest = divmod(self.codes.shape[2], size)
        if rest:
            raise ValueError(f"blocks of {self.codes.shape[2]} inputs are not whole ones of {size}")
        count = -(-self.inputs // size)  # the last of a padded block may hold padding alone
        codes = self.codes.reshape(len(self.codes), -1, size)[:, :count]
        scales, zeros = self.scales.repeat(parts, axis=1)[:, :count], self.zero_points.repeat(parts, axis=1)[:, :count]
        offsets = None if self.offsets is None else self.offsets.repeat(parts, axis=1)[:, :count]
        return BlockQuantized(np.ascontiguousarray(codes), scales, zeros, self.bits, self.inputs, offsets)

    def with_offset_columns(self) -> BlockQuantized:
        """See the function of the same name."""
        return with_offset_columns(self)

    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points as they are stored, offsets as columns of their own."""
        stored = self if self.offsets is None else with_offset_columns(self)
        return (stored.codes.size + stored.zero_points.size) * stored.bits // 8 + stored.scales.nbytes


def joined(parts: list[BlockQuantized]) -> BlockQuantized:
    """Matrices with the same inputs and bits, their outputs one after another."""
    first = parts[0]
    columns = ((part.codes, part.scales, part.zero_points) for part in parts)
    codes, scales, zeros = (np.concatenate(column) for column in zip(*columns, strict=True))
    offsets = None if first.offsets is None else np.concatenate([_offsets_of(part) for part in parts])
    return BlockQuantized(codes, scales, zeros, first.bits, first.inputs, offsets)


def with_offset_columns(matrix: BlockQuantized) -> BlockQuantized:
    """The matrix [N, K + K/block] that gives the same product when each block's sum is appended to the input.

    Σ_j (w_j + offset_b) x_j = Σ_j w_j x_j + Σ_b offset_b Σ_{j in b} x_j: an offset is the weight of its block's sum.
    The offsets, each at most half a step for a well-placed zero point, are quantised with the same bits and block.

    Raises:
        ValueError: the inputs are not whole blocks, or there are no offsets.
    """
    block = matrix.codes.shape[2]
    if matrix.inputs % block:
        raise ValueError(f"{matrix.inputs} inputs are not whole blocks of {block}")
    offsets = _offsets_of(matrix)
    columns = quantize_blocks(offsets, matrix.bits, block)
    return BlockQuantized(
        np.concatenate([matrix.codes, columns.codes], axis=1),
        np.concatenate([matrix.scales, columns.scales], axis=1),
        np.concatenate([matrix.zero_points, columns.zero_points], axis=1),
        matrix.bits,
        matrix.inputs + offsets.shape[1],
    )


def _offsets_of(matrix: BlockQuantized) -> Floats:
    if matrix.offsets is None:
        raise ValueError("the matrix has no offsets")
    return matrix.offsets


def _packed(groups: Codes, bits: int) -> Codes:
    """The last axis, 8 / bits codes, as one byte each."""
    shifts = np.arange(groups.shape[-1], dtype=np.uint8) * np.uint8(bits)
    packed: Codes = np.bitwise_or.reduce(groups << shifts, axis=-1).astype(np.uint8)
    return packed


def quantize_blocks(
    weight: Floats,
    bits: int,
    block: int,
    *,
    symmetric: bool = False,
    positive: bool = False,
    importance: Floats | None = None,
) -> BlockQuantized:
    """Quantise a matrix so that Σ importance · (w − ŵ)² is small in every block.

    Args:
        weight: float32 [N, K].
        bits: 2, 3, 4 or 8.
        block: inputs that share a scale.
        symmetric: fix the zero point at 2^(bits−1), as formats without zero points need.
        positive: keep scales above zero, for engines that refuse others; only with `symmetric`.
        importance: float32 [K], how much an error in each input column matters (its mean squared activation);
            None for all alike.
    """
    tasks = [weight[start : start + _ROWS_PER_TASK] for start in range(0, len(weight), _ROWS_PER_TASK)]

    def quantized(rows: Floats) -> tuple[Codes, Floats, Codes]:
        return _quantize_rows(rows, bits, block, symmetric, positive, importance)

    if weight.size < _LEAST_FOR_THREADS:
        parts = [quantized(rows) for rows in tasks]
    else:
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(quantized, tasks))
    codes, scales, zeros = (np.concatenate(column) for column in zip(*parts, strict=True))
    return BlockQuantized(codes, scales, zeros, bits, weight.shape[1])


def blocks_of(weight: Floats, block: int) -> Floats:
    """[N, K] → [N, ⌈K/block⌉, block], padded with zeros."""
    padding = -weight.shape[1] % block
    if padding:
        weight = np.pad(weight, ((0, 0), (0, padding)))
    return weight.reshape(len(weight), -1, block)


def _quantize_rows(
    rows: Floats, bits: int, block: int, symmetric: bool, positive: bool, importance: Floats | None
) -> tuple[Codes, Floats, Codes]:
    values = blocks_of(np.asarray(rows, dtype=np.float32), block)
    weights = np.ones((1, values.shape[1], block), np.float32)
    if importance is not None:
        weights = blocks_of(importance[None, :].astype(np.float32), block)
        weights = weights + 1e-6 * weights.mean() + np.float32(1e-30)
    best_error = np.full(values.shape[:2], np.inf, np.float32)
    best_scale = np.zeros(values.shape[:2], np.float32)
    best_zero = np.zeros(values.shape[:2], np.float32)
    for scale, zero in _candidates(values, weights, bits, symmetric, positive):
        centred = _centred_codes(values, scale, zero, bits)
        error = (weights * (values - centred * scale[..., None]) ** 2).sum(-1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_zero = np.where(better, zero, best_zero)
    codes = _centred_codes(values, best_scale, best_zero, bits) + best_zero[..., None]
    return codes.astype(np.uint8), best_scale, best_zero.astype(np.uint8)


def _candidates(
    values: Floats, weights: Floats, bits: int, symmetric: bool, positive: bool
) -> Iterator[tuple[Floats, Floats]]:
    """(scale, zero point) pairs worth trying: each range, then twice its least-squares scale."""
    top = np.float32(2**bits - 1)
    middle = np.float32(2 ** (bits - 1))
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    extreme = np.where(-low > high, low, high)
    for fraction in RANGES[bits]:
        if positive:
            scale = np.maximum(-low / middle, high / (middle - 1)) * np.float32(fraction)
            scale = np.maximum(scale, SMALLEST_SCALE)
            zero = np.full_like(scale, middle)
        elif symmetric:
            # The negative side has one code more: let it hold the extreme value, whatever its sign.
            scale = -extreme * np.float32(fraction) / middle
            zero = np.full_like(scale, middle)
        else:
            scale = (high - low) * np.float32(fraction) / top
            zero = np.clip(np.rint(-low * np.float32(fraction) / _nonzero(scale)), 0, top)
        scale = _nonzero(scale)
        yield scale, zero
        for _ in range(2):
            centred = _centred_codes(values, scale, zero, bits)
            power = (weights * centred * centred).sum(-1)
            scale = _nonzero(np.where(power > 0, (weights * centred * values).sum(-1) / _nonzero(power), scale))
            scale = np.maximum(scale, SMALLEST_SCALE) if positive else scale
            yield scale, zero


def _centred_codes(values: Floats, scale: Floats, zero: Floats, bits: int) -> Floats:
    """code − zero_point of each value, as float32."""
    codes: Floats = np.rint(values / scale[..., None])
    clipped: Floats = np.clip(codes, -zero[..., None], np.float32(2**bits - 1) - zero[..., None])
    return clipped


def _nonzero(x: Floats) -> Floats:
    return np.where(np.abs(x) < np.float32(1e-30), np.float32(1e-30), x)
