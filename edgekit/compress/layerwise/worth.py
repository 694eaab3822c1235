"""What bits are worth to a matrix whose codes decide: the sizes it may be given, and the loss to expect at each.

A bit more of codes quarters the loss. What else bytes can buy is counted in the same coin, in bits of codes that would
do as well: smaller blocks, by figures that hold for all matrices, and a correction, by what a probe of the matrix
says. Bytes then go to codes where they are worth most, and to corrections where those are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.compress.saten.correction import FACTORS
from edgekit.compress.saten.cost import planned_seconds
from edgekit.compress.saten.factors import largest_rank
from edgekit.compress.saten.methods.saten_augmented import asked_bytes, possible_bases
from edgekit.compress.saten.request import Settings

#: Bits per weight that a probe's correction takes, and what a bit of a correction is worth where no probe tells.
PROBE_CORRECTION, TYPICAL_WORTH = 0.12, 0.8
#: A correction of c bits is worth w c / (1 + FADING c), w being what its first bits are worth. With BLOCK_WORTH fitted
#: to matrices of MiniLM: 64 against 32 and 128 inputs for a scale, and corrections of 0.05 to 0.35 bits.
FADING = 0.55
#: Bits that halving a block is worth, from 64 inputs down and up.
FINER, COARSER = 0.16, 0.1
#: Bits per weight that may go to a correction; more never paid.
CORRECTIONS = (0.0, 0.06, 0.12, 0.2, 0.3, 0.45, 0.7, 1.0)

#: (bytes, loss) of a matrix as it was probed.
Points = Sequence[tuple[int, float]]


def probe_base(shape: tuple[int, int], settings: Settings) -> tuple[int, int, int]:
    """(bytes, bits, block) of the base that probes have: 3 bits, or what is nearest, the largest block up to 128."""
    bases = possible_bases(shape, settings)
    bits = min((bits for _, bits, _ in bases), key=lambda bits: (abs(bits - 3), bits))
    blocks = sorted(block for _, each, block in bases if each == bits)
    block = max((block for block in blocks if block <= 128), default=blocks[0])
    return next(base for base in bases if base[1:] == (bits, block))


@dataclass(frozen=True)
class Choice:
    """A way to store a matrix: a base of some bits in blocks, with a correction.

    Attributes:
        nbytes: of both.
        loss: to be expected.
        nanoseconds: of one token's product on one thread, by the cost model, the correction being low rank alone.
    """

    nbytes: int
    loss: float
    nanoseconds: int
    bits: int
    block: int


def choices(method: str, shape: tuple[int, int], settings: Settings, points: Points) -> Iterator[Choice]:
    """Every base with every correction that the method may have."""
    corrected = method == "saten-augmented"
    _, probe_bits, probe_block = probe_base(shape, settings)
    begin = _codes_worth(probe_bits, probe_block)
    part = asked_bytes(shape, settings) if corrected else 0
    value = correction_worth(points, shape) if corrected else 0.0
    weights = shape[0] * shape[1]
    for size, bits, block in possible_bases(shape, settings):
        for more in CORRECTIONS if corrected else (0.0,):
            nbytes = size + part + math.ceil(more * weights / 8)
            share = 8 * (nbytes - size) / weights
            gained = _codes_worth(bits, block) - begin + value * share / (1 + FADING * share)
            rank = largest_rank(shape, nbytes - size, settings.factors or FACTORS, settings.block)
            time = math.ceil(1e9 * planned_seconds(shape, bits, block, rank))
            yield Choice(nbytes, points[0][1] * 4**-gained, time, bits, block)


def correction_worth(points: Points, shape: tuple[int, int]) -> float:
    """Bits of codes that the first bits of a correction are worth, per bit: from a probe without and one with."""
    if len(points) < 2 or min(loss for _, loss in points) <= 0:
        return TYPICAL_WORTH
    (plain, loss), (larger, less) = points[0], points[1]
    taken = 8 * (larger - plain) / (shape[0] * shape[1])
    if taken <= 0:
        return TYPICAL_WORTH
    return max(0.0, math.log(loss / less, 4)) * (1 + FADING * taken) / taken


def _codes_worth(bits: int, block: int) -> float:
    finer = math.log2(64 / block)
    return bits + (FINER if finer > 0 else COARSER) * finer
