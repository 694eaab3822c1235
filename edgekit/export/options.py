"""What an export may be asked for, and what it will take."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.compress.quantizer import ALLOWED_COST, KEEP_8BIT, QuantizationSettings
from edgekit.contract import FORM_JETPACK6, FORM_ORT, FORM_TENSORRT, FORMS
from edgekit.errors import ExportError

#: What multiplies by a compressed matrix's base, but for the portable form; see `edgekit.export.base_choice`.
BASE_AUTO, BASE_OPERATOR, BASE_PRODUCTS = "auto", "operator", "products"
BASES = (BASE_AUTO, BASE_OPERATOR, BASE_PRODUCTS)
DTYPES = ("fp32", "fp16", "int8", "int4")
BLOCK_SIZES = (16, 32, 64, 128)
#: Of INT4 weights in TensorRT:
#: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-schemes.html
TENSORRT_BLOCK_SIZES = (64, 128)
TENSORRT_FORMS = (FORM_TENSORRT, FORM_JETPACK6)

#: Context that a bundle serves unless asked otherwise: rotary tables for more would dwarf a small model.
DEFAULT_MAX_CONTEXT = 8192


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        dtype: of the weights: "fp32", "fp16", "int8" or "int4". Activations and cache are float16 for "fp16" and in
            the forms for TensorRT for integers, else float32.
        form: one of `edgekit.contract.FORMS`.
        max_context: longest context in tokens; None for the model's own, at most DEFAULT_MAX_CONTEXT.
        block_size: weights per scale; None for 32, and 64 in the forms for TensorRT.
        allowed_cost, keep_8bit, carry_over, calibration_sequences, calibration_length: see `QuantizationSettings`.
        base: what multiplies by the bases of a compressed checkpoint: "operator" (TTSparseLinear, from the stored
            bytes; a plugin in the forms for TensorRT), "products" (MatMulNBits, which stock ONNX Runtime has, or
            TensorRT's own), or "auto": what the cost model expects to be faster, or what TensorRT does not read.
        name: the model's name in the manifest; None for the checkpoint's.
        draft: a file of draft heads for the bundle to draft with; None for none.
        draft_components: how many of their components are computed, 1 to r; None for the default, see
            `edgekit.export.draft_heads`. draft_tokens: of how many tokens they speak; None for all that they can.
    """

    dtype: str
    form: str = FORM_ORT
    max_context: int | None = None
    block_size: int | None = None
    allowed_cost: float = ALLOWED_COST
    keep_8bit: tuple[str, ...] = KEEP_8BIT
    carry_over: bool = True
    calibration_sequences: int = QuantizationSettings.sequences
    calibration_length: int = QuantizationSettings.length
    base: str = BASE_AUTO
    name: str | None = None
    draft: str | None = None
    draft_components: int | None = None
    draft_tokens: int | None = None

    def __post_init__(self) -> None:
        for field, value, known in (
            ("dtype", self.dtype, DTYPES),
            ("form", self.form, FORMS),
            ("base", self.base, BASES),
            ("block_size", self.block, TENSORRT_BLOCK_SIZES if self.for_tensorrt else BLOCK_SIZES),
        ):
            if value not in known:
                rule = f"{field} must be one of {', '.join(map(str, known))}"
                raise ExportError(rule, f"it is {value!r}", f"choose another {field}")
        if self.draft is None and (self.draft_components, self.draft_tokens) != (None, None):
            raise ExportError(
                "components and drafted tokens are of draft heads", "there are none to take them of",
                "give their file with --draft HEADS",
            )  # fmt: skip

    @property
    def for_tensorrt(self) -> bool:
        """Whether TensorRT is what the form is for."""
        return self.form in TENSORRT_FORMS

    @property
    def block(self) -> int:
        """Weights per scale."""
        return self.block_size if self.block_size is not None else 64 if self.for_tensorrt else 32

    @property
    def activations(self) -> str:
        """Element type of activations and cache, as numpy calls it."""
        half = self.dtype == "fp16" or (self.for_tensorrt and self.dtype != "fp32")
        return "float16" if half else "float32"

    @property
    def quantization(self) -> QuantizationSettings | None:
        """Settings for the quantiser; None for an export without quantisation."""
        if self.dtype not in ("int8", "int4"):
            return None
        return QuantizationSettings(
            bits=int(self.dtype[3:]),
            block=self.block,
            symmetric=self.form != FORM_ORT,
            for_tensorrt=self.for_tensorrt,
            allowed_cost=self.allowed_cost,
            keep_8bit=tuple(self.keep_8bit),
            carry_over=self.carry_over,
            sequences=self.calibration_sequences,
            length=self.calibration_length,
        )
