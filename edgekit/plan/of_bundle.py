"""Options of a plan for a bundle as it is: its model, and the draft heads that are built and loaded beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekit.bundle import Bundle
from edgekit.plan.drafts import bundle_at, drafts_for, drafts_of
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.options import PlanOptions, options_for


def asked_options(
    model: str, sizes: ModelSizes, draft_tokens: int | None, acceptance: float | None, **choices: Any
) -> PlanOptions:
    """The options of `options_for`, with the drafts that were asked for, or those of the bundle `model`.

    Raises:
        ModelError, DeviceError: as `options_for`, and as `drafts_for`.
        BundleError: the bundle is damaged.
    """
    bundle = bundle_at(model)
    if bundle is not None and draft_tokens is None and acceptance is None:
        return options_of_bundle(bundle, sizes, **choices)
    return options_for(sizes, drafts=drafts_for(model, draft_tokens, acceptance), **choices)


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
