"""An encoder in PyTorch, float32: each text by itself, so that nothing depends on padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgekit.bundle import Bundle
from edgekit.bundle.manifest import EncoderInfo
from edgekit.errors import BundleError
from edgekit.layers.pooling import SentenceEncoder
from edgekit.models._weights import Weights
from edgekit.models.registry import encoder_from_checkpoint

Floats = npt.NDArray[Any]


class TorchEncoder:
    """The checkpoint's encoder with the bundle's pooling."""

    def __init__(self, checkpoint: Weights, info: EncoderInfo) -> None:
        """ModelError where the checkpoint's model cannot be built."""
        self._model = SentenceEncoder(encoder_from_checkpoint(checkpoint), info.pooling, info.normalize)

    def run(self, text: Sequence[int]) -> tuple[Floats, list[Floats]]:
        """The embedding [D] of one text's tokens, and its hidden states [S, hidden] after each layer."""
        ids = torch.tensor([list(text)])
        with torch.no_grad():
            embedding, hidden = self._model(ids, torch.ones_like(ids))
        return embedding[0].numpy(), [state[0].numpy() for state in hidden]

    def embed(self, texts: Sequence[Sequence[int]], advance: Callable[[int], None] = lambda count: None) -> Floats:
        """Embeddings float32 [n, D]; `advance` is called with 1 after each text."""
        rows = []
        for text in texts:
            rows.append(self.run(text)[0])
            advance(1)
        return np.stack(rows)


def encoder_info(bundle: Bundle) -> EncoderInfo:
    """What an encoder's manifest says of it. Raises BundleError for another kind of bundle."""
    info = bundle.manifest.encoder
    if info is None:
        raise BundleError("this comparison is for an encoder", f"{bundle.path} holds a {bundle.manifest.kind}")
    return info
