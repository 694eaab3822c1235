"""What a manifest says of the draft heads in its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.bundle.fields import Fields, mistyped, safe_name


@dataclass(frozen=True)
class DraftInfo:
    """The draft graph and what it drafts.

    Attributes:
        file, data: the ONNX file and its external data files; its inputs and outputs are in `edgekit.contract`.
        vocabulary: a file of int32 [D], ascending: the token behind each of the graph's D columns. NumPy's format,
            without pickled objects.
        vocabulary_size: D.
        tokens: n, drafted after the known one.
        rank: r, components of the mixture; components: how many of them the graph computes, r for all without noise.
        feature_layers: after how many layers the decoder's features are read.
        features: F, numbers of the features of one position.
        window: earlier positions that a draft sees; 0 for none.
        acceptance: what training measured, of tokens 1 to n given those before each: of the likeliest ("greedy") and at
            temperature 1 ("sampled"). Empty where it says nothing.
    """

    file: str
    data: tuple[str, ...]
    vocabulary: str
    vocabulary_size: int
    tokens: int
    rank: int
    components: int
    feature_layers: tuple[int, ...]
    features: int
    window: int
    acceptance: Mapping[str, tuple[float, ...]]

    @property
    def files(self) -> tuple[str, ...]:
        """All its files."""
        return (self.file, *self.data, self.vocabulary)


def draft_entry(raw: Fields) -> DraftInfo | None:
    """The draft heads of a manifest; None where it says nothing of any. Raises BundleError naming the field."""
    if raw.values.get("draft") is None:  # as in bundles without heads, and in those made before there were any
        return None
    fields = raw.fields("draft")
    rank, components = fields.integer("rank", least=1), fields.integer("components", least=1)
    if components > rank:
        raise mistyped("draft.components", f"at most the rank, {rank}", components)
    layers, features = fields.integers("feature_layers"), fields.integer("features", least=1)
    hidden = raw.fields("model").integer("hidden_size")
    if features != len(layers) * hidden:
        raise mistyped("draft.features", f"{len(layers)} layers of {hidden} numbers", features)
    tokens = fields.integer("tokens", least=1)
    return DraftInfo(
        file=safe_name(fields.text("file")),
        data=tuple(safe_name(name) for name in fields.strings("data")),
        vocabulary=safe_name(fields.text("vocabulary")),
        vocabulary_size=fields.integer("vocabulary_size", least=1),
        tokens=tokens,
        rank=rank,
        components=components,
        feature_layers=layers,
        features=features,
        window=fields.integer("window", least=0) if "window" in fields.values else 0,
        acceptance=_acceptance(fields.values.get("acceptance"), tokens),
    )


def _acceptance(found: object, tokens: int) -> Mapping[str, tuple[float, ...]]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise mistyped("draft.acceptance", "an object or null", found)
    for way, chances in found.items():
        if not (isinstance(chances, list) and len(chances) == tokens and all(map(_is_chance, chances))):
            raise mistyped(f"draft.acceptance.{way}", f"a chance from 0 to 1 for each of {tokens} tokens", chances)
    return {way: tuple(map(float, chances)) for way, chances in found.items()}


def _is_chance(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
