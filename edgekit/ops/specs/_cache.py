"""The cache rule that appending operators share."""

from __future__ import annotations

from edgekit.ops.shapes import Sizes
from edgekit.ops.spec import Attribute, Axis, Tolerance

#: Axes of a cache. P is the length of a past operand, N that of a present.
CACHE_AXES = (
    Axis("B", "batch"),
    Axis("S", "new tokens"),
    Axis("T", "tokens in the cache afterwards, padding included; the length of attention_mask"),
    Axis("P", "length of the past operands: T - S where the cache grows, its capacity (at least T) in place"),
    Axis("N", "length of the presents: T where the cache grows, P in place"),
)

#: Read by TensorRT, which knows no lengths when it asks for the shape of a present; elsewhere the lengths decide.
IN_PLACE = Attribute(
    "in_place", "int", "1 where the presents have the shape of the pasts (TensorRT; else the lengths decide)", value=0
)
PLUGIN = (
    Attribute("plugin_namespace", "string", "of the TensorRT plugin", value="edgekit"),
    Attribute("plugin_version", "string", "of the TensorRT plugin", value="1"),
)

#: Sums are float32 except for float64, so what is left is one rounding of each row that enters the cache and one of
#: the output.
TOLERANCES = {
    "float64": Tolerance(1e-14, 1e-12),
    "float32": Tolerance(1e-12, 5e-6),
    "float16": Tolerance(1e-6, 2.5e-3),
    "bfloat16": Tolerance(5e-5, 2e-2),
}
DTYPES = ("float32", "float16", "bfloat16", "float64")


def present_length(sizes: Sizes) -> Sizes:
    """N from P, S and T.

    Raises:
        ValueError: the past is neither the T - S older rows nor a buffer for at least T.
    """
    past, new, total = sizes["P"], sizes["S"], sizes["T"]
    if new > total:
        raise ValueError(f"the attention mask covers {total} tokens, fewer than the {new} new ones")
    if past == total - new:
        return {"N": total}
    if past >= total:
        return {"N": past}
    raise ValueError(
        f"the past must hold the {total - new} older tokens, or be a buffer for at least {total}; it holds {past}"
    )
