"""Memory for intermediate results: what TensorRT reports as "Total Activation Memory".

TensorRT compiles the whole decoder into one kernel sequence and reserves the most that is alive at once, for the
largest sizes of the shape profile. Three moments compete (docs/planning.md derives them, with what was measured):

- a matrix product, beside which the product's own workspace lies;
- the attention kernel, where grouped keys and values are repeated for every query head;
- the feed-forward layer.

Bytes; B batch, S new tokens, C context, x = H, q = h d, k = g d, f = F numbers of an activation.
"""

from __future__ import annotations

from edgekit.plan.estimate import Estimate
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.storage import activation_bytes

#: Workspace that TensorRT-RTX 1.7 adds where sizes vary: the same for models of all sizes and in every type.
PRODUCT_WORKSPACE_BYTES = 8_192_000
#: Positions, slots and masks as 64-bit integers, per token of context.
_POSITION_BYTES = 264

#: Share of a layer's moment that the plan of memory cannot reuse for logits: it lies in pieces between them.
_LEFT_BESIDE_LOGITS = 0.75

#: Bounds around the formulas: what engines of four shapes deviated by, and something more (docs/planning.md).
IN_PLACE_SPREAD, GROWING_SPREAD = (0.15, 0.15), (0.20, 0.30)
_BASIS = (
    "largest moment of a decoder's memory, in the manner of TensorRT-RTX 1.7; other versions lay it out differently"
)


def activation_memory(
    sizes: ModelSizes, dtype: str, batch: int, new: int, context: int, *, in_place: bool = True
) -> Estimate:
    """Bytes for the largest shapes of a profile.

    Args:
        batch: sequences; new: most new tokens at once; context: most tokens in all.
        in_place: caches are written in place.
    """
    if not in_place:
        # The largest step may come on top of the longest past (`edgekit.build.profile.decoder_axes`).
        context += new - 1
    if dtype == "fp32" and in_place and not sizes.query_rows:
        return _full_precision_in_place(sizes, batch, new, context)
    if dtype == "fp32" and not sizes.query_rows:
        value = _full_precision(sizes, batch, new, context)
    elif in_place or sizes.query_rows:
        value = _in_place(sizes, dtype, batch, new, context)
    else:
        value = _growing(sizes, dtype, batch, new, context)
    below, above = IN_PLACE_SPREAD if in_place or sizes.query_rows else GROWING_SPREAD
    return Estimate.within(value, below, above, _BASIS)


def plugin_workspace(sizes: ModelSizes, batch: int, new: int, multiprocessors: int) -> int:
    """Bytes that `TPAAttention` asks for: rotated queries, and partial outputs of split contexts with their softmax
    states, in float32 (`plugins/tpa_attention/kernel.cuh`, struct Workspace). Layers use it in turn.
    """
    if not sizes.query_rows:
        return 0
    rows = max(batch * min(new, 8), 4 * multiprocessors)
    queries = batch * new * sizes.query_rows * sizes.head_dim
    partial, states = rows * sizes.heads * sizes.head_dim, rows * sizes.heads * 2
    return sum(_aligned(4 * count) for count in (queries, partial, states))


def _aligned(count: int) -> int:
    return (count + 255) // 256 * 256


def _in_place(sizes: ModelSizes, dtype: str, batch: int, new: int, context: int) -> float:
    x, q, k, f = (activation_bytes(dtype) * count for count in _widths(sizes))
    logits = _logits(sizes, dtype, batch, new)
    if sizes.query_rows:
        # The plugin needs no mask and repeats nothing; its workspace is an item of its own.
        return PRODUCT_WORKSPACE_BYTES + logits + batch * new * max(3 * f + 2 * x, 5 * q + 2 * k)
    # Masks and 64-bit slots; attention reads copies of keys and values, beside a product's workspace only one of them.
    masks = context * (2 * new + 8) + 3 * q * new
    product, attention = masks + context * k, masks + 2 * context * k
    feed_forward = new * (2.5 * f + 2.5 * x + 2 * context)
    beside_logits = logits + _LEFT_BESIDE_LOGITS * batch * product if logits else 0
    return max(PRODUCT_WORKSPACE_BYTES + max(batch * max(product, feed_forward), beside_logits), batch * attention)


def _logits(sizes: ModelSizes, dtype: str, batch: int, new: int) -> int:
    """One sequence's go straight to the output; of several, and of integer heads, they are kept beside it first."""
    kept = batch > 1 or dtype not in ("fp16", "fp32")
    return activation_bytes(dtype) * batch * new * sizes.vocab_size if kept else 0


def _growing(sizes: ModelSizes, dtype: str, batch: int, new: int, context: int) -> float:
    x, q, k, f = (2 * count for count in _widths(sizes))
    grouped = sizes.kv_heads < sizes.heads
    logits = _logits(sizes, dtype, batch, new)
    mask = 2 * new
    # Kernels take key heads in powers of two; where query heads are no such multiple, keys are repeated for each.
    repeated = max(4 * sizes.head_dim * _power_of_two(sizes.kv_heads), q) if grouped else 0
    product = context * (mask + repeated + _POSITION_BYTES) + new * (5 * q + 2 * k)
    attention = context * (mask + 2 * q * grouped + _POSITION_BYTES // 2) + new * (6 * q + 2 * k)
    feed_forward = new * (3 * f + 2 * x + context)
    beside_logits = logits + _LEFT_BESIDE_LOGITS * batch * product if logits else 0
    return max(PRODUCT_WORKSPACE_BYTES + max(batch * max(product, feed_forward), beside_logits), batch * attention)


def _full_precision_in_place(sizes: ModelSizes, batch: int, new: int, context: int) -> Estimate:
    """There is no fused attention in float32: scores [B, h, S, C] are held before and after the softmax.

    Beside them lie keys and values that are repeated for every query head, and a product's workspace; TensorRT-RTX
    leaves out the one or the other for some sizes, by no rule that was found, so that is the lower bound.
    """
    x, q, _, f = (4 * count for count in _widths(sizes))
    scores = 4 * sizes.heads * new * context
    masks = 4 * new * context
    usual = 2 * scores + 2 * context * q + masks + 2 * new * q
    least = 2 * scores + context * q + masks + 3 * new * q
    value = PRODUCT_WORKSPACE_BYTES + batch * max(usual, new * (3 * f + 2 * x))
    below, above = IN_PLACE_SPREAD
    return Estimate(value, (1 - below) * min(value, batch * least), (1 + above) * value, _BASIS)


def _full_precision(sizes: ModelSizes, batch: int, new: int, context: int) -> float:
    """With growing caches: scores [B, h, S, C] are held, before and after the softmax."""
    _, q, k, f = (4 * count for count in _widths(sizes))
    scores = 4.0 * sizes.heads * new * context
    decode = PRODUCT_WORKSPACE_BYTES + batch * (2 * scores + 2 * context * k + 2 * new * q)
    prompt = batch * (2.2 * scores + 2.3 * scores * new / context + context * q)
    return max(decode, prompt, PRODUCT_WORKSPACE_BYTES + batch * 3 * new * f)


def _widths(sizes: ModelSizes) -> tuple[int, int, int, int]:
    return (
        sizes.hidden_size,
        sizes.heads * sizes.head_dim,
        sizes.kv_heads * sizes.head_dim,
        sizes.intermediate_size,
    )


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
