"""What heads are told of the known token: what the model itself makes of it, with no context but a text's beginning.

A model's last state after a lone token holds which tokens follow it, for all tokens of the vocabulary and not only
those that the text is long enough to show often. Heads read a projection of such states, and a table of that is what
they keep.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.draft.features import exact_streams, fast_streams
from edgekit.draft.heads import DraftHeads
from edgekit.files import atomic_write
from edgekit.heal.full_attention import head_of
from edgekit.layers.decoder import Decoder

_AT_ONCE = 1024


class TokenReader(nn.Module):
    """The projection [token_rank, S] of token states; its table is what a file of heads holds."""

    def __init__(self, states: int, rank: int, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(rank, states, generator=torch.Generator().manual_seed(seed)) / states**0.5
        )

    def forward(self, states: Tensor) -> Tensor:
        """[N, token_rank] from [N, S]."""
        return functional.linear(states, self.weight)

    @torch.no_grad()
    def table(self, states: Tensor) -> Tensor:
        """float32 [V, token_rank], on the CPU, from the states of all tokens [V, S]."""
        return torch.cat([self(part.float()) for part in torch.split(states, _AT_ONCE)]).cpu()


class Student(nn.Module):
    """All that is trained: heads, and the reader whose table they read."""

    def __init__(self, heads: DraftHeads, reader: TokenReader) -> None:
        super().__init__()
        self.heads, self.reader = heads, reader

    def forward(
        self, features: Tensor, states: Tensor, before: int = 0, missing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log w [N, r] and v [N, n, r, d] of N = G (T - before) positions, text by text.

        Args:
            features: [G, T, F]; states: [G, T, S], of the known token after each position.
            before, missing: see `DraftHeads.trunk_output`.
        """
        u = self.heads.trunk_output(features, self.reader(states.float()), before, missing).flatten(0, 1)
        return self.heads.log_weights(u), self.heads.positions(u)


@torch.no_grad()
def token_states(
    model: Decoder, layers: tuple[int, ...], beginning: int, advance: Callable[[int], None] = lambda count: None
) -> Tensor:
    """float16 [V, S]: each token's embedding and its residual stream after `layers`, in a text of `beginning` and it.

    Each part is divided by its root mean square. S = (1 + number of layers) * d. A text's first position is no use:
    many models keep one huge number there whatever the token is. `advance` is called with the number of tokens done.
    """
    embedding = model.model.embed_tokens.weight
    found = []
    for tokens in torch.split(torch.arange(len(embedding), device=embedding.device), _AT_ONCE):
        ids = torch.stack([torch.full_like(tokens, beginning), tokens], 1)
        streams = fast_streams(model, ids) if head_of(model).dtype == torch.bfloat16 else exact_streams(model, ids)
        parts = [embedding[tokens].float()]
        parts += [stream[:, 1].float() for count, stream in enumerate(streams, 1) if count in layers]
        found.append(torch.cat([functional.rms_norm(part, part.shape[-1:]) for part in parts], -1).half())
        advance(len(tokens))
    return torch.cat(found).cpu()


def kept_states(
    path: Path,
    model: Decoder,
    layers: tuple[int, ...],
    beginning: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """`token_states`, from `path` where an earlier run left them."""
    if not path.is_file():
        buffer = io.BytesIO()
        np.save(buffer, token_states(model, layers, beginning, advance).numpy())
        atomic_write(path, buffer.getvalue())
    return torch.from_numpy(np.load(path, allow_pickle=False))
