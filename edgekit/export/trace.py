"""Tracing: a model's structure as an ONNX graph without weight data.

The model is built of fake tensors, so tracing costs no memory for weights. The graph keeps Hugging Face names for its
constants and holds attention as one `edgekit::CausalAttention` node per layer; rewriting lowers or fuses it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs
import onnx_ir
import torch
from onnx_ir.passes.common import IdentityEliminationPass
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from edgekit import contract
from edgekit.errors import ExportError
from edgekit.layers.config import DecoderConfig
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import architecture, model_from_config, model_on_meta
from edgekit.rewrite.rule import Geometry

OPSET = 23  # Attention, RMSNormalization and RotaryEmbedding are operators from here on
IR_VERSION = 10

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16}

# Sizes of the example inputs: different from each other, and none of 0 or 1, which tracing would specialise on.
_BATCH, _NEW, _PAST = 2, 3, 5


@dataclass
class Traced:
    """A traced decoder.

    Attributes:
        graph: constants that need data are gs.Constant without values, under their Hugging Face names.
        geometry: sizes read off the model.
        taps: names of internal tensors that hold the residual stream, embedding first.
    """

    graph: gs.Graph
    geometry: Geometry
    taps: list[str]


def traced_from_config(
    config: dict[str, Any],
    dtype: str = "float32",
    max_positions: int | None = None,
    prepare: Callable[[Decoder], None] = lambda model: None,
) -> Traced:
    """Trace the architecture that a Hugging Face style configuration describes.

    Args:
        config: the checkpoint's config.json.
        dtype: "float32" or "float16", of activations, weights and cache.
        max_positions: rows of the rotary tables, i.e. the longest context the graph can serve.
        prepare: changes the model of fake tensors before it is traced.

    Raises:
        ModelError: unknown architecture or an unsupported configuration.
        ExportError: tracing failed.
    """
    torch_dtype = TORCH_DTYPES[dtype]
    fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with fake, default_dtype(torch_dtype):
        model = model_from_config(config, max_positions)
        prepare(model)
        # The graph holds the tables in the element type of the activations too.
        for module in model.modules():
            module._buffers.update({name: table.to(torch_dtype) for name, table in module.named_buffers(recurse=False)})
        geometry = geometry_of(config)
        past = [
            tuple(torch.empty(tensor.shape(_BATCH, _PAST), dtype=torch_dtype) for tensor in cache)
            for cache in geometry.caches
        ]
        arguments = (
            torch.empty(_BATCH, _NEW, dtype=torch.int64),
            torch.empty(_BATCH, _PAST + _NEW, dtype=torch.int64),
            past,
            torch.empty(1, dtype=torch.int64),
        )
    graph = gs.import_onnx(_traced(model, arguments, geometry))
    counted = Counter(node.op for node in graph.nodes if node.domain == contract.OPERATOR_DOMAIN)
    geometry = replace(geometry, operators=dict(counted))
    taps = [contract.hidden_tap(i) for i in range(geometry.layers + 1)]
    graph.outputs = [tensor for tensor in graph.outputs if tensor.name not in set(taps)]
    sign(
        graph,
        contract.decoder_inputs(geometry.caches, dtype),
        contract.decoder_outputs(geometry.caches, dtype, geometry.vocab_size),
    )
    return Traced(graph, geometry, taps)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New parameters and tables are of that type inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def geometry_of(config: dict[str, Any]) -> Geometry:
    """The sizes rewriting needs, from a checkpoint's configuration."""
    sizes: DecoderConfig = architecture(str(config.get("model_type"))).Config.from_dict(config)
    model = model_on_meta(config)
    return Geometry(
        layers=sizes.num_layers,
        heads=sizes.num_heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        tied=sizes.tied,
        caches=tuple(model.cache_layout()),
    )


def _traced(model: Decoder, arguments: tuple[Any, ...], geometry: Geometry) -> onnx.ModelProto:
    batch, new = Dim(contract.AXIS_BATCH), Dim(contract.AXIS_SEQUENCE)
    past, total = Dim(contract.AXIS_PAST), Dim(contract.AXIS_TOTAL)
    dynamic_shapes = (
        {0: batch, 1: new},
        {0: batch, 1: total},
        [tuple({0: batch, tensor.axis: past} for tensor in cache) for cache in geometry.caches],
        None,
    )
    outputs = contract.decoder_outputs(geometry.caches, "float32", 0)
    return structure_of(
        model,
        arguments,
        dynamic_shapes,
        [signature.name for signature in contract.decoder_inputs(geometry.caches, "float32")],
        [signature.name for signature in outputs] + [contract.hidden_tap(i) for i in range(geometry.layers + 1)],
    )


def structure_of(
    model: nn.Module, arguments: tuple[Any, ...], dynamic_shapes: Any, inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    """A model of fake tensors as ONNX: references in place of weights, inputs and outputs named.

    Raises:
        ExportError: tracing failed.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # optimize=True would fold constants, for which fake tensors have no data.
            program = torch.onnx.export(
                model,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic_shapes,
                optimize=False,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            "the model must be traceable by torch.export with dynamic batch and lengths",
            str(error).strip().splitlines()[0],
            "report this model's config.json together with the output of `edgekit --debug export ...`",
        ) from error
    finally:
        logger.setLevel(level)
    assert program is not None
    return _without_data(program.model)


def _without_data(model: onnx_ir.Model) -> onnx.ModelProto:
    """The traced model with references in place of fake data."""
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and isinstance(getattr(tensor, "raw", None), FakeTensor):
            value.const_value = onnx_ir.ExternalTensor(
                "data", 0, 0, tensor.dtype, shape=value.shape or onnx_ir.Shape([]), name=name
            )
    IdentityEliminationPass()(model)
    model.ir_version = IR_VERSION
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traced.onnx"
        onnx_ir.save(model, path)
        return onnx.load(path, load_external_data=False)


def sign(
    graph: gs.Graph, expected_in: list[contract.TensorSignature], expected_out: list[contract.TensorSignature]
) -> None:
    """Write the contract's names and shapes on the graph's inputs and outputs."""
    for tensors, signatures in ((graph.inputs, expected_in), (graph.outputs, expected_out)):
        names = [tensor.name for tensor in tensors]
        assert names == [signature.name for signature in signatures], names
        for tensor, signature in zip(tensors, signatures, strict=True):
            tensor.shape = list(signature.shape)
    kept = {id(node.inputs[0]) for node in graph.nodes if node.op == "TTSparseLinear"}
    for tensor in graph.tensors().values():
        if id(tensor) in kept and isinstance(tensor, gs.Variable) and tensor not in graph.inputs:
            # How many inputs a layer has does not follow from its codes.
            tensor.shape = [axis if isinstance(axis, int) else None for axis in tensor.shape]
            continue
        # Symbolic sizes of internal tensors are torch's own expressions; inference gives them again where needed.
        if isinstance(tensor, gs.Variable) and tensor not in graph.inputs and tensor not in graph.outputs:
            tensor.shape = None
