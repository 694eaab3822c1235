"""A measured perplexity as it is kept beside a bundle and printed as JSON."""

from __future__ import annotations

from typing import Any

from edgekit.evaluate.perplexity import EncodedText, Perplexity, compared
from edgekit.evaluate.windows import WindowPlan


def eval_document(
    text: EncodedText, plan: WindowPlan, found: Perplexity, reference: tuple[str, Perplexity] | None = None
) -> dict[str, Any]:
    """What was measured, on what and how.

    Args:
        reference: another decoder's perplexity on the same windows, with its name.
    """
    document: dict[str, Any] = {
        "text": {"name": text.name, "sha256": text.sha256, "bytes": text.bytes, "tokens": len(text.tokens)},
        "context": plan.context,
        "stride": plan.stride,
        "bos": plan.bos,
        **found.to_dict(),
        "reference": None,
    }
    if reference is not None:
        name, other = reference
        ratio = compared(found, other)
        document["reference"] = {
            "name": name,
            **other.to_dict(),
            "ratio": ratio.ratio,
            "ratio_standard_error": ratio.standard_error,
        }
    return document
