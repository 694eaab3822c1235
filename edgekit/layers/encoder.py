"""The encoder that BERT and its relatives share: post-norm blocks in which every token attends to every other.

Parameter names are those of Hugging Face checkpoints (embeddings.word_embeddings.weight, encoder.layer.0....). Blocks
differ in what their attention calls its projections, and come from the model's file.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.layers.config import ConfigFields
from edgekit.layers.mlp import activation


@dataclass(frozen=True)
class EncoderConfig:
    """What every encoder's configuration holds; architectures add their own fields. Sizes are counts of elements."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    layer_norm_eps: float
    max_position_embeddings: int
    hidden_act: str
    pad_token_id: int

    @property
    def head_dim(self) -> int:
        """Numbers of each head."""
        return self.hidden_size // self.num_heads


def encoder_fields(fields: ConfigFields, *, eps: float, pad: int) -> dict[str, Any]:
    """The fields of `EncoderConfig`; `eps` and `pad` are the architecture's defaults. ModelError for malformed ones."""
    hidden_size, num_heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if hidden_size % num_heads:
        raise ModelError(
            "num_attention_heads must divide hidden_size.",
            f"{hidden_size} / {num_heads} is not whole.",
            "Correct the checkpoint's config.json.",
        )
    if fields.flag("is_decoder", False):
        raise ModelError(
            "An encoder attends in both directions.",
            "The configuration says is_decoder: true.",
            "This kind of model is not supported.",
        )
    return {
        "vocab_size": fields.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("intermediate_size"),
        "num_layers": fields.integer("num_hidden_layers"),
        "num_heads": num_heads,
        "layer_norm_eps": fields.number("layer_norm_eps", eps),
        "max_position_embeddings": fields.integer("max_position_embeddings"),
        "hidden_act": fields.text("hidden_act", "gelu"),
        "pad_token_id": fields.integer("pad_token_id", pad, least=0),
    }


class Dense(nn.Module):
    """A projection called `dense`, as checkpoints of this family name it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)


class DenseNorm(Dense):
    """LayerNorm(residual + dense(x))."""

    def __init__(self, inputs: int, outputs: int, eps: float) -> None:
        super().__init__(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """[B, S, outputs] for x [B, S, inputs]."""
        output: Tensor = self.LayerNorm(self.dense(x) + residual)
        return output


class EncoderLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + W2 act(W1 x)). `attention` holds its own residual and norm."""

    def __init__(self, config: EncoderConfig, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.intermediate = Dense(config.hidden_size, config.intermediate_size)
        self.output = DenseNorm(config.intermediate_size, config.hidden_size, config.layer_norm_eps)
        self.act = activation(config.hidden_act)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, hidden]; `bias` as in `edgekit.layers.encoder_attention.attend`."""
        attended = self.attention(x, bias)
        output: Tensor = self.output(self.act(self.intermediate.dense(attended)), attended)
        return output


class Layers(nn.Module):
    """What Hugging Face calls `encoder`: the blocks."""

    def __init__(self, layers: Sequence[EncoderLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class EncoderOutput(NamedTuple):
    """What an encoder returns: token vectors [B, S, hidden] after the embedding and after each layer (L + 1 tensors).

    Vectors of padding are meaningless.
    """

    hidden: list[Tensor]

    @property
    def tokens(self) -> Tensor:
        """Token vectors after the last layer."""
        return self.hidden[-1]


class Encoder(nn.Module, ABC):
    """A bidirectional encoder. Architectures give `embeddings`, `encoder` and how positions enter.

    Attributes:
        max_positions: the most tokens of a text.
        token_types: whether it takes token_type_ids.
    """

    #: Weight transforms by the end of the parameter's name, see `edgekit.models.registry`.
    weight_transforms: ClassVar[dict[str, str]] = {}
    #: Tensors of published checkpoints that embeddings do not depend on: position numbers, and the head that the next
    #: sentence was predicted from.
    unused_weights: ClassVar[re.Pattern[str]] = re.compile(r"embeddings\.position_ids|pooler\.dense\.(weight|bias)")

    embeddings: nn.Module
    encoder: Layers

    def __init__(self, config: EncoderConfig, max_positions: int, *, token_types: bool) -> None:
        super().__init__()
        self.config, self.max_positions, self.token_types = config, max_positions, token_types

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> EncoderOutput:
        """Token vectors.

        Args:
            input_ids: int64 [B, S].
            attention_mask: int64 [B, S], zeros for padding (at the right), at least one 1 in each row.
            token_type_ids: int64 [B, S]; None for zeros.

        Raises:
            ModelError: more tokens than the position table has rows (not checked in a trace).
        """
        if not torch.onnx.is_in_onnx_export() and input_ids.shape[1] > self.max_positions:
            raise ModelError(
                f"A text may have at most {self.max_positions} tokens.",
                f"This one has {input_ids.shape[1]}.",
                "Shorten it.",
            )
        x = self.embeddings(input_ids, token_type_ids)
        bias = self.attention_bias(x, attention_mask)
        hidden = [x]
        for layer in self.encoder.layer:
            x = layer(x, bias)
            hidden.append(x)
        return EncoderOutput(hidden)

    @abstractmethod
    def attention_bias(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """What is added to the attention scores of all layers: x's dtype, [B, 1 or H, S, S]."""

    def tables(self) -> dict[str, Tensor]:
        """Values of the buffers by name, on the CPU; they follow from the configuration."""
        return {}
