"""Tracing an encoder with its pooling: from token ids to embeddings, as an ONNX graph without weight data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_graphsurgeon as gs
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from edgekit import contract
from edgekit.checkpoint.pooling_files import Pooling
from edgekit.export.trace import TORCH_DTYPES, Traced, default_dtype, sign, structure_of
from edgekit.layers.encoder import Encoder
from edgekit.layers.pooling import SentenceEncoder
from edgekit.models.registry import encoder_from_config
from edgekit.rewrite.rule import Geometry

#: Where the encoder's parameters stand in the traced model; checkpoints have them without it.
PREFIX = "model."
# Different from each other, and none of 0 or 1, which tracing would specialise on.
_BATCH, _SEQUENCE = 2, 5


def traced_encoder(
    config: dict[str, Any],
    pooling: Pooling,
    dtype: str = "float32",
    prepare: Callable[[Encoder], None] = lambda encoder: None,
) -> Traced:
    """Trace the encoder that a Hugging Face configuration describes.

    Args:
        dtype: "float32" or "float16", of activations and weights; embeddings are float32.
        prepare: changes the encoder of fake tensors before it is traced.

    Raises:
        ModelError: unknown architecture or an unsupported configuration.
        ExportError: tracing failed.
    """
    fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with fake, default_dtype(TORCH_DTYPES[dtype]):
        encoder = encoder_from_config(config)
        matrices = len(matrix_names(encoder))
        prepare(encoder)
        model = SentenceEncoder(encoder, pooling.mode, pooling.normalize)
        inputs = contract.encoder_inputs(encoder.token_types)
        arguments = tuple(torch.empty(_BATCH, _SEQUENCE, dtype=torch.int64) for _ in inputs)
    axes = {0: Dim(contract.AXIS_BATCH), 1: Dim(contract.AXIS_SEQUENCE)}
    outputs = contract.encoder_outputs(encoder.config.hidden_size)
    taps = [contract.hidden_tap(i) for i in range(encoder.config.num_layers + 1)]
    names = [signature.name for signature in inputs]
    proto = structure_of(model, arguments, tuple(axes for _ in inputs), names, [outputs[0].name, *taps])
    graph = gs.import_onnx(proto)
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, gs.Constant):
            tensor.name = name.removeprefix(PREFIX)
    graph.outputs = [tensor for tensor in graph.outputs if tensor.name not in set(taps)]
    sign(graph, inputs, outputs)
    return Traced(graph, geometry_of_encoder(encoder, matrices), taps)


def geometry_of_encoder(encoder: Encoder, matrices: int) -> Geometry:
    """The sizes rewriting needs; `matrices` that it multiplies by."""
    config = encoder.config
    return Geometry(
        layers=config.num_layers,
        heads=config.num_heads,
        kv_heads=config.num_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        tied=False,
        matrices=matrices,
    )


def matrix_names(encoder: Encoder) -> list[str]:
    """The weights of products, in the order of the model."""
    return [f"{path}.weight" for path, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
