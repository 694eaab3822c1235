"""Which options of an export have an effect on which dtype, so that one without effect is refused, not ignored."""

from __future__ import annotations

from collections.abc import Iterable

_QUANTIZED = frozenset({"block_size", "carry_over"})
_CALIBRATED = _QUANTIZED | {"allowed_cost", "keep_8bit", "calibration_sequences", "calibration_length"}

#: Options of the quantiser that are used, by dtype.
USED = {"fp32": frozenset[str](), "fp16": frozenset[str](), "int8": _QUANTIZED, "int4": _CALIBRATED}


def idle_options(dtype: str, given: Iterable[str]) -> list[str]:
    """Those of the given options that do nothing for this dtype, sorted. Options of other things are let through."""
    return sorted((_CALIBRATED - USED[dtype]) & set(given))
