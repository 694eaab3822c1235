"""Which options of an export have an effect on which dtype, so that one without effect is refused, not ignored."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.contract import FORM_JETPACK6, FORM_PORTABLE, FORM_TENSORRT

_QUANTIZED = frozenset({"block_size", "carry_over"})
_CALIBRATED = _QUANTIZED | {"allowed_cost", "keep_8bit", "calibration_sequences", "calibration_length"}

#: Options of the quantiser that are used, by dtype.
USED = {"fp32": frozenset[str](), "fp16": frozenset[str](), "int8": _QUANTIZED, "int4": _CALIBRATED}
#: What the forms for TensorRT leave of them: 8 bits have a scale per output, and no checkpoint's integers fit.
_IDLE_FOR_TENSORRT = {"int8": _QUANTIZED, "int4": frozenset({"carry_over"})}


def idle_options(dtype: str, given: Iterable[str], form: str = "") -> list[str]:
    """Those of the given options that do nothing for this dtype and form, sorted.

    Options of other things are let through.
    """
    used = USED[dtype]
    if form in (FORM_TENSORRT, FORM_JETPACK6):
        used -= _IDLE_FOR_TENSORRT.get(dtype, frozenset())
    idle = _CALIBRATED - used
    if form == FORM_PORTABLE:
        idle |= {"base"}
    return sorted(idle & set(given))
