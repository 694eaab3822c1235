"""Options of a plan for a bundle as it is: its model, and the draft heads that are built and loaded beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from edgekit.bundle import Bundle
from edgekit.contract import FORM_JETPACK6, FORM_TENSORRT
from edgekit.plan.drafts import bundle_at, drafts_for, drafts_of
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.options import PlanOptions, options_for

#: Of the weights where nothing says of which type they are.
DEFAULT_DTYPE = "fp16"
_FOR_ENGINES = (FORM_TENSORRT, FORM_JETPACK6)


def asked_options(
    model: str,
    sizes: ModelSizes,
    draft_tokens: int | None,
    acceptance: float | None,
    *,
    dtype: str | None = None,
    **choices: Any,
) -> PlanOptions:
    """The options of `options_for`, with the drafts that were asked for, or those of the bundle `model`.

    Args:
        dtype: of the weights; None for that of the bundle, or `DEFAULT_DTYPE`.
        choices: others of `options_for`.

    Raises:
        ModelError, DeviceError: as `options_for`, and as `drafts_for`.
        BundleError: the bundle is damaged.
    """
    bundle = bundle_at(model)
    assumed = _assumed(bundle, dtype)
    chosen = dtype or (DEFAULT_DTYPE if bundle is None else bundle.manifest.dtype)
    if bundle is not None and draft_tokens is None and acceptance is None:
        options = options_of_bundle(bundle, sizes, dtype=chosen, **choices)
    else:
        options = options_for(sizes, drafts=drafts_for(model, draft_tokens, acceptance), dtype=chosen, **choices)
    if bundle is not None and chosen == "int4" and _nothing_at_8_bits(bundle):
        options = replace(options, compression=replace(options.compression, share_at_8_bits=0.0))
    return replace(options, assumed=assumed)


def _assumed(bundle: Bundle | None, dtype: str | None) -> tuple[str, ...]:
    """What is planned of the weights where that is not simply what was asked for."""
    if bundle is None:
        if dtype is not None:
            return ()
        return (f"Weights are planned as {DEFAULT_DTYPE}, since no --dtype was given: int8 and int4 take less.",)
    own, form = bundle.manifest.dtype, bundle.manifest.form
    same = ", as the bundle's are." if dtype in (None, own) else f"; the bundle's own are {own}."
    said = [f"Weights are planned as {dtype or own}{same}"]
    if form not in _FOR_ENGINES:
        said.append(
            f"The bundle is of the {form} form, which devices' engines are not built from: the plan is of an export of "
            "the same model with --form tensorrt."
        )
    return tuple(said)


def _nothing_at_8_bits(bundle: Bundle) -> bool:
    """Whether an int4 bundle's layers are all of 4 bits, by its manifest; False where that is not told, or where
    another export decides."""
    if bundle.manifest.form not in _FOR_ENGINES:
        return False
    kept = (bundle.manifest.raw.get("quantization") or {}).get("units_at_8_bits")
    return isinstance(kept, list) and not any(re.search(r"\d", str(unit)) for unit in kept)


def options_of_bundle(
    bundle: Bundle, sizes: ModelSizes, *, draft_tokens: int | None = None, **choices: Any
) -> PlanOptions:
    """The options of `options_for`, with the bundle's draft heads in memory.

    What drafting wins is told for one sequence; the heads' bytes count for any number of them.

    Args:
        draft_tokens: most that are drafted, of what the heads propose; None for all, 0 for none: the heads stay loaded.
        choices: of `options_for`.

    Raises:
        ModelError, DeviceError: as `options_for`.
    """
    heads = bundle.manifest.draft
    if heads is None:
        return options_for(sizes, **choices)
    count = heads.tokens if draft_tokens is None else min(draft_tokens, heads.tokens)
    drafts = drafts_of(bundle, heads, count or None, None)
    told = drafts if count and choices.get("batch", 1) == 1 else None
    options = options_for(sizes, drafts=told, **choices)
    return replace(options, compression=replace(options.compression, draft_head_bytes=drafts.graph_bytes or 0))
