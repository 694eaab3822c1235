"""What draft heads are made of: their sizes, their vocabulary, the model they belong to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.errors import CheckpointError


@dataclass(frozen=True)
class DraftConfig:
    """Sizes of draft heads.

    Attributes:
        tokens: n, tokens drafted after the one that is known.
        rank: r, components of the mixture; 1 is independent heads.
        hidden_size: d, of the model.
        feature_layers: after how many layers the residual stream is read, ascending; the model's last among them.
        token_rank: numbers that the token table holds of each token.
        window: earlier positions that a draft sees; 0 for none.
        heads, kv_heads, head_size: of the attention that sees them.
        trunk_width: inner width of the trunk's gated MLP.
        residual_rank: inner width of each position's own transform.
        component_rank: inner width of what each component of a position adds to it; 0 without mixture.
        vocabulary: D, tokens that can be drafted.
        eps: of the norms.
    """

    tokens: int
    rank: int
    hidden_size: int
    feature_layers: tuple[int, ...]
    token_rank: int
    trunk_width: int
    residual_rank: int
    component_rank: int
    vocabulary: int
    window: int = 0
    heads: int = 1
    kv_heads: int = 1
    head_size: int = 1
    eps: float = 1e-5

    @property
    def features(self) -> int:
        """F, numbers of the features of one position."""
        return len(self.feature_layers) * self.hidden_size

    @property
    def kept(self) -> int:
        """Numbers that are kept of a position that is to be seen: key, value, and 1 for that it is there."""
        return 2 * self.kv_heads * self.head_size + 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "feature_layers": list(self.feature_layers)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> DraftConfig:
        """From JSON. Raises CheckpointError naming what is missing or no count."""
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            value = document.get(name)
            counts = value if name == "feature_layers" and isinstance(value, list) else [value]
            least = 0 if name in ("component_rank", "window", "eps") else 1
            fitting = [isinstance(n, float if name == "eps" else int) and n >= least for n in counts]
            if not counts or not all(fitting):
                raise CheckpointError(
                    "draft heads record their sizes", f"{name} is {value!r}", "train them again: edgekit draft train"
                )
            values[name] = tuple(counts) if name == "feature_layers" else value
        if values["heads"] % values["kv_heads"]:
            raise CheckpointError(
                "heads share keys and values evenly",
                f"{values['heads']} heads and {values['kv_heads']} of keys and values",
                "train them again: edgekit draft train",
            )
        return cls(**values)
