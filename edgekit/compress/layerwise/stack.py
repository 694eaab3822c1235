"""A model as a stack of blocks that are loaded one at a time.

A loss says how much outputs matter. A decoder's is the next token's cross entropy, in nats; an encoder's is the product
of its embedding with a random vector of signs, whose squared gradient is, on average over such vectors, that of all
coordinates of the embedding together: its metric is the squared distance of embeddings.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.pooling_files import pooling_of
from edgekit.compress.calibration import calibration_text, calibration_tokens
from edgekit.compress.encoder import calibration_passages
from edgekit.contract import KIND_ENCODER
from edgekit.layers.decoder import Decoder
from edgekit.layers.encoder import Encoder
from edgekit.layers.pooling import pooled
from edgekit.models._weights import assign_weights
from edgekit.models.registry import encoder_on_meta, kind_of, model_on_meta

_LAYER = re.compile(r"^(.*?\.layers?\.)(\d+)\.")


def layer_of(name: str) -> int | None:
    """The block that a weight belongs to; None for embeddings, head and the like."""
    found = _LAYER.match(name)
    return int(found[2]) if found else None


TOKENS_AT_A_TIME = 1024


class Stack(ABC):
    """A model of whose blocks at most one holds weights.

    Attributes:
        layers: how many blocks.
        passages: int64 [n, S], what it is measured on.
    """

    def __init__(self, checkpoint: Checkpoint, model: Decoder | Encoder, passages: Tensor) -> None:
        self.checkpoint, self.model, self.passages = checkpoint, model, passages
        self.layers = len(self.blocks())

    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The blocks."""

    @abstractmethod
    def begin(self, index: int) -> Tensor:
        """What the first block sees of a passage: [1, S, hidden]. Inside `loaded(None)`."""

    @abstractmethod
    def block(self, layer: int, x: Tensor) -> Tensor:
        """The block's output for [n, S, hidden]. Inside `loaded(layer)`."""

    @abstractmethod
    def loss(self, x: Tensor, index: int) -> Tensor:
        """Of a passage, from what the last block gives; a sum over its tokens. Inside `loaded(None)`."""

    def grouped(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """[n, S, hidden] in parts that go through a block together: products of a single short passage are slow."""
        count = max(1, TOKENS_AT_A_TIME // hidden.shape[1])
        return tuple(hidden[start : start + count] for start in range(0, len(hidden), count))

    @contextmanager
    def loaded(self, layer: int | None) -> Iterator[None]:
        """The weights of one block, or of all that is outside the blocks, are there in the block."""
        assign_weights(self.model, self.checkpoint, torch.float32, lambda name: layer_of(name) == layer)
        try:
            yield
        finally:
            for name, parameter in list(self.model.named_parameters()):
                if layer_of(name) == layer:
                    owner, _, last = name.rpartition(".")
                    empty = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
                    setattr(self.model.get_submodule(owner), last, empty)

    def linear(self, layer: int) -> dict[str, nn.Linear]:
        """A block's matrices' modules by the name of the weight."""
        names = {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}
        return {f"{name}.weight": module for name, module in names.items() if layer_of(f"{name}.") == layer}


class DecoderStack(Stack):
    """Of a causal language model."""

    model: Decoder

    def blocks(self) -> nn.ModuleList:
        return self.model.model.layers

    def begin(self, index: int) -> Tensor:
        return self.model.embedded(self.passages[index][None])

    def block(self, layer: int, x: Tensor) -> Tensor:
        block: Any = self.blocks()[layer]
        tables: Any = self.model.get_submodule(str(block.rope))
        past = tuple(x.new_empty(tensor.shape(len(x), 0)) for tensor in block.self_attn.cache_tensors())
        mask = torch.ones(x.shape[:2], dtype=torch.int64)
        output: Tensor = block(x, past, mask, tables.cos, tables.sin)[0]
        return output

    def loss(self, x: Tensor, index: int) -> Tensor:
        logits = self.model.logits(self.model.model.norm(x))[0]
        return functional.cross_entropy(logits[:-1], self.passages[index, 1:], reduction="sum")


class EncoderStack(Stack):
    """Of a sentence encoder; its passages have no padding."""

    model: Encoder

    def __init__(self, checkpoint: Checkpoint, model: Encoder, passages: Tensor) -> None:
        super().__init__(checkpoint, model, passages)
        self._pooling = pooling_of(checkpoint.path)
        with self.loaded(None):
            self._bias = model.attention_bias(self.begin(0), self._mask())

    def _mask(self) -> Tensor:
        return torch.ones(1, self.passages.shape[1], dtype=torch.int64)

    def blocks(self) -> nn.ModuleList:
        return self.model.encoder.layer

    def begin(self, index: int) -> Tensor:
        output: Tensor = self.model.embeddings(self.passages[index][None], None)
        return output

    def block(self, layer: int, x: Tensor) -> Tensor:
        output: Tensor = self.blocks()[layer](x, self._bias)
        return output

    def loss(self, x: Tensor, index: int) -> Tensor:
        embedding = pooled(x, self._mask(), self._pooling.mode, self._pooling.normalize)[0]
        signs = torch.randint(0, 2, embedding.shape, generator=torch.Generator().manual_seed(index)) * 2.0 - 1.0
        # Gradients are averaged over tokens: what a passage's tokens do together is shared among them.
        product: Tensor = (embedding @ signs) * x.shape[1] ** 0.5
        return product


def stack_of(checkpoint: Checkpoint, sequences: int, length: int, text: str | None = None) -> Stack:
    """The checkpoint's model, and passages of a text (None for the one that edgekit carries) for it.

    Raises:
        ModelError, CheckpointError, ExportError: the model cannot be built, or the text is too short.
    """
    if kind_of(checkpoint.config) == KIND_ENCODER:
        encoder = encoder_on_meta(checkpoint.config)
        length = min(length, encoder.max_positions)
        return EncoderStack(checkpoint, encoder, calibration_passages(checkpoint, sequences, length, text))
    tokenizer = checkpoint.tokenizer_files()["tokenizer.json"]
    tokens = calibration_tokens(tokenizer, text or calibration_text(), sequences, length)
    return DecoderStack(checkpoint, model_on_meta(checkpoint.config, max_positions=length), tokens)
