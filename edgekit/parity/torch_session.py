"""A decoder session over a PyTorch model: the reference of every comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit.layers.decoder import Decoder
from edgekit.runtime.session import Features, Logits, Tokens


class TorchSession:
    """Implements DecoderSession and keeps what its last forward saw.

    Attributes:
        hidden: the residual stream of the last forward's tokens, [B, S, hidden] after the embedding and each layer.
        features: see DecoderSession.features; of the layers that were asked for.
    """

    name = "pytorch"

    def __init__(self, model: Decoder, feature_layers: Sequence[int] = ()) -> None:
        """`feature_layers`: after how many layers draft heads read the residual stream."""
        self._model, self._feature_layers = model, tuple(feature_layers)
        self.features: Features | None = None
        parameter = model.model.embed_tokens.weight
        self.description = f"PyTorch {torch.__version__}, {str(parameter.dtype).removeprefix('torch.')}"
        self.capacity = model.max_positions
        self.hidden: list[npt.NDArray[Any]] = []
        self._past: list[tuple[Tensor, ...]] | None = None
        self._layout = model.cache_layout()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._past[0][0].shape[self._layout[0][0].axis]) if self._past else 0

    def forward(self, tokens: Tokens, keep: int = 1) -> Logits:
        """See DecoderSession.forward."""
        past = self._past if self._past else self._model.empty_cache(len(tokens))
        mask = torch.ones(len(tokens), self.length + tokens.shape[1], dtype=torch.int64)
        with torch.inference_mode():
            output = self._model(torch.from_numpy(tokens), mask, past, torch.tensor([keep]))
        self._past = output.present
        self.hidden = [state.numpy() for state in output.hidden]
        logits: Logits = output.logits.numpy()
        if self._feature_layers:
            read = [self.hidden[layer][:, -logits.shape[1] :] for layer in self._feature_layers]
            self.features = np.concatenate(read, axis=-1)
        return logits

    def rollback(self, length: int) -> None:
        """See DecoderSession.rollback."""
        if self._past is not None:
            self._past = (
                [
                    tuple(tensor.narrow(form.axis, 0, length) for form, tensor in zip(cache, past, strict=True))
                    for cache, past in zip(self._layout, self._past, strict=True)
                ]
                if length
                else None
            )

    def reset(self) -> None:
        """See DecoderSession.reset."""
        self._past, self.hidden, self.features = None, [], None

    def close(self) -> None:
        """See DecoderSession.close."""
        self.reset()

    def caches(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Every layer's cache tensors for `length` tokens, by suffix."""
        return [
            {form.suffix: tensor.numpy() for form, tensor in zip(cache, past, strict=True)}
            for cache, past in zip(self._layout, self._past or [], strict=bool(self._past))
        ]


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
    past = model.empty_cache(len(prompts))
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
