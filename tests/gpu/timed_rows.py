"""The rows of the table of timings."""

from __future__ import annotations

from collections.abc import Iterator

from tests.gpu.timed_append import Append
from tests.gpu.timed_attention import Attention
from tests.gpu.timed_linear import Linear


def all_work() -> Iterator[Attention | Linear | Append]:
    """The rows of the table, the most telling first."""
    shapes = [
        ("T6, as SmolLM2-135M", 9, 64, (6, 2, 2)),
        ("T6 medium", 47, 64, (6, 2, 2)),
        ("32 heads of 128", 32, 128, (6, 2, 2)),
        ("32 heads of 128, rank 4", 32, 128, (6, 4, 4)),
        ("32 heads of 64, rank 6", 32, 64, (6, 6, 6)),
    ]
    converted = ("GQA 32/8 converted exactly", 32, 128, (1, 8, 8))
    for batch in (1, 8):
        for context in (4096, 1024, 32768):
            for shape in shapes:
                yield Attention(*shape, context, batch)
            yield Attention(*converted, context, batch, kv_heads=8, dense=True)
    for outputs in (4096, 14336):
        for tokens in (1, 8):
            for bits in (4, 3, 2):
                yield Linear(4096, outputs, 0, 0, tokens, residual=0, base_bits=bits)
            yield Linear(4096, outputs, 32, 20, tokens, factor_bits=8, value_bits=8, base_bits=3)
    for tokens in (1, 8):
        yield Linear(576, 1536, 0, 0, tokens, residual=0, base_bits=4)
        yield Linear(576, 1536, 8, 6, tokens, factor_bits=8, value_bits=8, base_bits=4)
    yield Linear(4096, 4096, 0, 0, 512, residual=0, base_bits=4)
    for size, rank in ((576, 72), (2048, 256), (4096, 512)):
        for tokens in (1, 8):
            yield Linear(size, size, rank, size // 20 // 2 * 2, tokens)
    for tokens in (1, 8):
        yield Linear(4096, 14336, 512, 204, tokens)
    for size, rank in ((576, 32), (4096, 256)):
        for tokens in (1, 8):
            yield Linear(size, size, rank, size // 20, tokens, factor_bits=4, value_bits=8)
            yield Linear(size, size, rank, size // 8, tokens, residual=2, factor_bits=4, value_bits=8)
            yield Linear(size, size, rank, 0, tokens, residual=3, factor_bits=4, value_bits=8)
    for length in (512, 2048):
        for shape in shapes[:3]:
            yield Attention(*shape, length, new=length)
    for shape in shapes[:3]:
        yield Attention(*shape, 4096, new=5)
    for shape in shapes:
        yield Attention(*shape, 4096, dtype="bfloat16")
    yield Append(2, 64, 4096, batch=8)
    yield Append(2, 64, 4096, batch=8, new=2048)
    yield Append(2, 64, 4096, batch=8, grow=True)
    yield Append(2, 64, 32768, batch=8, grow=True)
