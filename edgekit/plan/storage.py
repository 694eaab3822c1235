"""Bytes of weights, as `edgekit export --form tensorrt` stores them; see docs/planning.md."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.plan.estimate import Estimate, total
from edgekit.plan.model_sizes import EMBEDDING, HEAD, Matrix, ModelSizes

#: Types that edgekit exports (`edgekit.export.options.DTYPES`, which imports torch; a test compares them).
DTYPES = ("fp32", "fp16", "int8", "int4")

#: Inputs that share a float16 scale at 4 bits (`ExportOptions.block` of the forms for TensorRT). At 8 bits each output
#: has one.
BLOCK = 64
_SCALE_BYTES = 2

#: Share of the matrices that calibration keeps at 8 bits in an int4 export: about a third on SmolLM2-135M with the
#: default budget (docs/performance.md); which ones cannot be known without calibrating, so anything up to two thirds
#: is allowed for.
KEPT_AT_8_BITS = Estimate(1 / 3, 0, 2 / 3, "a third at 8 bits, as calibration kept of SmolLM2-135M; 0 to 2/3")


@dataclass(frozen=True)
class Compression:
    """Terms of the cost model for what is not told by the configuration; zero or None changes nothing.

    Attributes:
        saten_bytes_per_weight: of the layers' matrices as a tensor train with sparse corrections.
        draft_head_bytes: of a draft graph, in memory; read at each step that drafts.
        share_at_8_bits: of the layers' matrices, what an int4 export kept at 8 bits; known only after it.
    """

    saten_bytes_per_weight: float | None = None
    draft_head_bytes: int = 0
    share_at_8_bits: float | None = None


def activation_bytes(dtype: str) -> int:
    """Bytes of an activation and of a cached number."""
    return 4 if dtype == "fp32" else 2


def matrix_bytes(matrix: Matrix, dtype: str, tied: bool, share_at_8_bits: float | None = None) -> Estimate:
    """Bytes of codes and scales of one kind of matrices."""
    if dtype in ("fp32", "fp16") or (matrix.role == EMBEDDING and not tied):
        # A lookup table beside a head of its own keeps the activations' type.
        return Estimate.exact(matrix.numbers * activation_bytes(dtype), "")
    at_8_bits = matrix.numbers + _SCALE_BYTES * matrix.outputs * matrix.count
    if dtype == "int8" or matrix.role in (EMBEDDING, HEAD) or matrix.inputs % BLOCK:
        return Estimate.exact(at_8_bits, "")
    at_4_bits = matrix.numbers * (0.5 + _SCALE_BYTES / BLOCK)
    kept = KEPT_AT_8_BITS if share_at_8_bits is None else Estimate.exact(share_at_8_bits, "measured")
    mixed = [at_4_bits + share * (at_8_bits - at_4_bits) for share in (kept.value, kept.low, kept.high)]
    return Estimate(mixed[0], mixed[1], mixed[2], kept.basis)


def table_bytes(sizes: ModelSizes, dtype: str, positions: int) -> int:
    """Bytes of cosines and sines."""
    return sizes.rotary_tables * 2 * positions * (sizes.head_dim // 2) * activation_bytes(dtype)


def read_bytes(sizes: ModelSizes, dtype: str, extra: Compression) -> Estimate:
    """Bytes of weights that one step reads: all but an embedding of which a row is looked up."""
    parts = [_of(matrix, sizes, dtype, extra) for matrix in sizes.read_matrices]
    parts.append(Estimate.exact(sizes.unquantised * activation_bytes(dtype) + extra.draft_head_bytes, ""))
    return total(parts, _basis(dtype))


def weight_bytes(sizes: ModelSizes, dtype: str, positions: int, extra: Compression) -> Estimate:
    """Bytes of all weights of an engine whose rotary tables serve that many positions."""
    parts = [_of(matrix, sizes, dtype, extra) for matrix in sizes.matrices]
    others = sizes.unquantised * activation_bytes(dtype) + table_bytes(sizes, dtype, positions) + extra.draft_head_bytes
    return total([*parts, Estimate.exact(others, "")], _basis(dtype))


def _of(matrix: Matrix, sizes: ModelSizes, dtype: str, extra: Compression) -> Estimate:
    if extra.saten_bytes_per_weight is not None and matrix.role not in (EMBEDDING, HEAD):
        return Estimate.exact(matrix.numbers * extra.saten_bytes_per_weight, "")
    return matrix_bytes(matrix, dtype, sizes.tied, extra.share_at_8_bits)


def _basis(dtype: str) -> str:
    return KEPT_AT_8_BITS.basis if dtype == "int4" else "counted from the configuration"
