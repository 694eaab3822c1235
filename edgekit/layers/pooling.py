"""From token vectors to one vector for a text, as sentence-transformers configures it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgekit.contract import POOLING_CLS, POOLING_MEAN, POOLINGS
from edgekit.errors import ModelError
from edgekit.layers.encoder import Encoder

#: The least count and norm that is divided by, as in sentence-transformers (Pooling.py) and torch's `normalize`.
_LEAST_COUNT, _LEAST_NORM = 1e-9, 1e-12


def pooled(tokens: Tensor, attention_mask: Tensor, pooling: str, normalize: bool) -> Tensor:
    """Embeddings float32 [B, hidden].

    Args:
        tokens: [B, S, hidden]; pooled in float32, because a sum over hundreds of tokens would lose float16's digits.
        attention_mask: int64 [B, S], zeros for padding.
        pooling: one of `edgekit.contract.POOLINGS`.
        normalize: scale to length 1.
    """
    tokens = tokens.float()
    if pooling == POOLING_MEAN:
        real = attention_mask.to(tokens.dtype)[..., None]
        embedding = (tokens * real).sum(1) / real.sum(1).clamp(min=_LEAST_COUNT)
    elif pooling == POOLING_CLS:
        embedding = tokens[:, 0]
    else:
        raise ModelError(f"Pooling must be one of {', '.join(POOLINGS)}.", f"It is {pooling!r}.")
    return functional.normalize(embedding, dim=-1, eps=_LEAST_NORM) if normalize else embedding


class SentenceEncoder(nn.Module):
    """An encoder and its pooling: from tokens to embeddings float32 [B, hidden], and the hidden states."""

    def __init__(self, encoder: Encoder, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.model, self.pooling, self.normalize = encoder, pooling, normalize

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Encoder.forward` and `pooled`."""
        output = self.model(input_ids, attention_mask, token_type_ids)
        return pooled(output.tokens, attention_mask, self.pooling, self.normalize), output.hidden
