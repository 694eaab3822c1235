"""A decoder session over a PyTorch model: the reference of every comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from edgekit.layers.attention import AttentionShape
from edgekit.layers.decoder import Decoder
from edgekit.runtime.session import Logits, Tokens


class TorchSession:
    """Implements DecoderSession and keeps what its last forward saw.

    Attributes:
        hidden: the residual stream of the last forward's tokens, [B, S, hidden] after the embedding and each layer.
    """

    name = "pytorch"

    def __init__(self, model: Decoder) -> None:
        self._model = model
        parameter = model.model.embed_tokens.weight
        self.description = f"PyTorch {torch.__version__}, {str(parameter.dtype).removeprefix('torch.')}"
        self.capacity = model.max_positions
        self.hidden: list[npt.NDArray[Any]] = []
        self._past: list[tuple[Tensor, Tensor]] | None = None

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._past[0][0].shape[2]) if self._past else 0

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        """See DecoderSession.forward."""
        past = self._past if self._past else empty_past(self._model, len(tokens))
        mask = torch.ones(len(tokens), self.length + tokens.shape[1], dtype=torch.int64)
        with torch.inference_mode():
            output = self._model(torch.from_numpy(tokens), mask, past, torch.tensor([keep]))
        self._past = output.present
        self.hidden = [state.numpy() for state in output.hidden]
        logits: Logits = output.logits.numpy()
        return logits

    def rollback(self, length: int) -> None:
        """See DecoderSession.rollback."""
        if self._past is not None:
            self._past = [(key[:, :, :length], value[:, :, :length]) for key, value in self._past] if length else None

    def reset(self) -> None:
        """See DecoderSession.reset."""
        self._past, self.hidden = None, []

    def close(self) -> None:
        """See DecoderSession.close."""
        self.reset()

    def caches(self) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Every layer's rotated keys and values, [B, kv_heads, length, head_dim]."""
        return [(key.numpy(), value.numpy()) for key, value in self._past or []]


def empty_past(model: Decoder, batch: int) -> list[tuple[Tensor, Tensor]]:
    """The cache of no tokens: for each layer keys and values [batch, kv_heads, 0, head_dim]."""
    shapes: list[AttentionShape] = [layer.self_attn.shape for layer in model.model.layers]  # type: ignore[misc]
    dtype = model.model.embed_tokens.weight.dtype
    empty = [torch.empty(batch, shape.kv_heads, 0, shape.head_dim, dtype=dtype) for shape in shapes]
    return [(tensor, tensor) for tensor in empty]


def greedy(
    model: Decoder, prompts: Sequence[Sequence[int]], count: int, progress: Callable[[], None] = lambda: None
) -> list[list[int]]:
    """The `count` tokens after each prompt, each the most likely one. All prompts run together, padded at the left.

    Args:
        progress: called after each token.
    """
    longest = max(map(len, prompts))
    pending = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    past = empty_past(model, len(prompts))
    chosen = []
    with torch.inference_mode():
        for _ in range(count):
            output = model(pending, mask, past, torch.tensor([1]))
            past, pending = output.present, output.logits[:, -1:].argmax(dim=-1)
            chosen.append(pending)
            mask = torch.cat((mask, torch.ones_like(pending)), 1)
            progress()
    tokens: list[list[int]] = torch.cat(chosen, 1).tolist()
    return tokens
