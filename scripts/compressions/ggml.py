"""llama.cpp's quantisers, from its own library, over a checkpoint's matrices.

As `llama-quantize --pure` does it: every matrix has the one type, or what llama.cpp takes instead where a row is not
whole blocks (`tensor_type_fallback` of src/llama-quant.cpp). The mixes that are called Q3_K_M and the like give some
matrices larger types; they are not made here.
"""

from __future__ import annotations

import ctypes
import difflib
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from edgekit.errors import ExportError

Floats = npt.NDArray[np.float32]

PREFIX, FLAT, IMATRIX = "ggml:", "/flat", "+imatrix"
#: Types of 256 numbers to a block, and the types of 32 that llama.cpp takes where a row is not whole blocks.
FALLBACK = {
    **dict.fromkeys(("q2_k", "q3_k", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s"), "iq4_nl"),
    **dict.fromkeys(("iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}
TYPES = {name: GGMLQuantizationType[name.upper()] for name in ("q4_0", "q4_1", *FALLBACK, *FALLBACK.values())}


@dataclass(frozen=True)
class GgmlType:
    """What is asked for.

    Attributes:
        name: of TYPES.
        flat: blocks run over the ends of rows, for which llama.cpp has neither a file nor kernels; it shows what the
            type could do.
        importance: weigh errors by the mean square of inputs, llama.cpp's importance matrix.
    """

    name: str
    flat: bool = False
    importance: bool = False

    def of(self, inputs: int) -> GGMLQuantizationType:
        """The type of a matrix with rows of so many inputs."""
        if self.flat:
            return TYPES[self.name]
        for name in (self.name, FALLBACK.get(self.name, self.name)):
            if inputs % GGML_QUANT_SIZES[TYPES[name]][0] == 0:
                return TYPES[name]
        return GGMLQuantizationType.F16

    def nbytes(self, shape: tuple[int, int]) -> int:
        """What a matrix [N, K] takes."""
        kind = self.of(shape[1])
        block, size = GGML_QUANT_SIZES[kind]
        return -(-shape[0] * shape[1] // block) * size


def ggml_type(method: str) -> GgmlType:
    """`ggml:TYPE`, `ggml:TYPE/flat`, either with `+imatrix`. ExportError for any other."""
    rest = method.removeprefix(PREFIX)
    name = rest.removesuffix(IMATRIX)
    found = GgmlType(name.removesuffix(FLAT), name.endswith(FLAT), rest.endswith(IMATRIX))
    if found.name not in TYPES:
        near = difflib.get_close_matches(found.name, TYPES, n=3) or list(TYPES)
        raise ExportError(
            f"llama.cpp's types are written {PREFIX}TYPE[{FLAT}][{IMATRIX}]",
            f"{method!r} names none that is known here",
            f"choose one, such as {', '.join(near)}",
        )
    return found


class GgmlLibrary:
    """libggml-base, which holds the quantisers. Raises ExportError where it is none.

    Attributes:
        version: such as "ggml 0.25.3".
    """

    def __init__(self, path: Path) -> None:
        floats = ctypes.POINTER(ctypes.c_float)
        try:
            self._library = ctypes.CDLL(str(path.absolute()))
            self._quantize = self._library.ggml_quantize_chunk
            self._needs = self._library.ggml_quantize_requires_imatrix
            self._row_size = self._library.ggml_row_size
            version = self._library.ggml_version
        except (OSError, AttributeError) as error:
            raise ExportError(
                "llama.cpp's quantisers are read from its libggml-base", f"{path}: {error}", "give that library"
            ) from error
        version.restype, version.argtypes = ctypes.c_char_p, []
        self.version = f"ggml {version().decode()}"
        self._quantize.restype = self._row_size.restype = ctypes.c_size_t
        self._quantize.argtypes = [ctypes.c_int, floats, ctypes.c_void_p, *[ctypes.c_int64] * 3, floats]
        self._needs.restype, self._needs.argtypes = ctypes.c_bool, [ctypes.c_int]
        self._row_size.argtypes = [ctypes.c_int, ctypes.c_int64]

    def check(self, asked: GgmlType) -> None:
        """ExportError for a type that needs an importance matrix and has none."""
        if self._needs(int(TYPES[asked.name])) and not asked.importance:
            raise ExportError(
                f"{asked.name} needs an importance matrix", "none was asked for", f"write {PREFIX}{asked.name}{IMATRIX}"
            )

    def rounded(self, asked: GgmlType, weight: Floats, importance: Floats | None = None) -> Floats:
        """What W [N, K] is after it was stored so.

        Args:
            importance: float32 [K], of each input, where `asked.importance`.

        Raises:
            ExportError: a number comes out that is not finite.
        """
        kind = asked.of(weight.shape[1])
        if kind == GGMLQuantizationType.F16:
            return weight.astype(np.float16).astype(np.float32)
        block, _ = GGML_QUANT_SIZES[kind]
        values = np.ascontiguousarray(weight, np.float32)
        weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
        if asked.flat:
            values = _padded(values.reshape(1, -1), block)
            weights = None if weights is None else _padded(np.tile(weights, len(weight))[None], block)[0]
        rows, inputs = values.shape
        stored = np.zeros((rows, self._row_size(int(kind), inputs)), np.uint8)
        self._library.ggml_quantize_init(int(kind))
        place = stored.ctypes.data
        given = None if weights is None else _pointer(weights)
        size = self._quantize(int(kind), _pointer(values), place, 0, rows, inputs, given)
        if size != stored.nbytes or (not asked.flat and size != asked.nbytes((rows, inputs))):
            raise AssertionError(f"{kind.name} of {values.shape} takes {size} bytes, not {stored.nbytes}")
        # gguf's own reader, so that the two check each other.
        found: Floats = gguf.quants.dequantize(stored, kind).reshape(-1)[: weight.size].reshape(weight.shape)
        if not np.isfinite(found).all():
            raise ExportError("quantised weights must be finite", f"{kind.name} gave some that are not", "leave it out")
        return found


def _padded(row: Floats, block: int) -> Floats:
    """[1, n] with zeros up to whole blocks."""
    return np.ascontiguousarray(np.pad(row, ((0, 0), (0, -row.shape[1] % block))))


def _pointer(array: Floats) -> ctypes._Pointer[ctypes.c_float]:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
