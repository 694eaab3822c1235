"""What torch.onnx.export makes of a model without weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from edgekit.layers.decoder import keep_last
from edgekit.layers.norm import HeadRMSNorm
from edgekit.models import registry

pytestmark = pytest.mark.filterwarnings("ignore:.*(axis name|LeafSpec):")


def traced(config: dict[str, Any]) -> Any:
    """The ONNX graph of a model that has no data: fake tensors stand in for all weights."""
    batch, new, past, total = (Dim(name) for name in ("batch", "new", "past", "total"))
    fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with fake:
        model = registry.model_from_config(config)
        cache = [torch.empty(2, 2, 5, 10) for _ in range(2 * config["num_hidden_layers"])]
        args = (
            torch.empty(2, 3, dtype=torch.int64),
            torch.empty(2, 8, dtype=torch.int64),
            list(zip(cache[::2], cache[1::2], strict=True)),
            torch.empty(1, dtype=torch.int64),
        )
    layer = ({0: batch, 2: past}, {0: batch, 2: past})
    shapes = ({0: batch, 1: new}, {0: batch, 1: total}, [layer] * config["num_hidden_layers"], None)
    program = torch.onnx.export(
        model, args, dynamo=True, opset_version=23, dynamic_shapes=shapes, optimize=False, verbose=False
    )
    assert program is not None
    return program.model.graph


#: Operators by hand: per layer 7 linears (Transpose + MatMul), 2 norms, 1 attention, gate * act(gate) * up, 2 sums.
LLAMA_LAYER = {
    "Transpose": 7,
    "MatMul": 7,
    "RMSNormalization": 2,
    "CausalAttention": 1,
    "Sigmoid": 1,
    "Mul": 2,
    "Add": 2,
}
ENDS = {"Gather": 1, "RMSNormalization": 1, "Neg": 1, "Slice": 1, "Transpose": 1, "MatMul": 1}
#: Per layer two head norms, each between two Reshape nodes, and two more norms; Gelu for Sigmoid and Mul.
GEMMA_LAYER = LLAMA_LAYER | {"RMSNormalization": 6, "Reshape": 4, "Gelu": 1, "Mul": 1, "Sigmoid": 0}


@pytest.mark.parametrize(
    ("name", "layers", "per_layer", "ends"),
    [
        ("llama", 3, LLAMA_LAYER, ENDS),
        ("gemma3", 4, GEMMA_LAYER, ENDS | {"Mul": 1}),
    ],
)
def test_operators_and_names(
    tools: Any, name: str, layers: int, per_layer: dict[str, int], ends: dict[str, int]
) -> None:
    checkpoint = tools.checkpoint_of(tools.published(name))
    graph = traced(checkpoint.config)
    operators = Counter(node.op_type for node in graph if node.op_type not in ("Constant", "Identity"))
    assert operators == Counter({op: count * layers for op, count in per_layer.items() if count}) + Counter(ends)
    tables = registry.model_on_meta(checkpoint.config).rope_tables()
    initializers = {name for name in graph.initializers if "lifted_tensor" not in name}
    assert initializers == {*checkpoint.arrays, *tables}
    logits, *present, _ = graph.outputs[: 1 + 2 * layers + 1]
    assert [str(size) for size in logits.shape][0::2] == ["batch", "101"]
    assert {(str(output.shape[0]), output.shape[1], output.shape[3]) for output in present} == {("batch", 2, 10)}
    assert {frozenset(str(output.shape[2]).split(" + ")) for output in present} == {frozenset(("new", "past"))}


def test_nodes_written_out_by_hand_compute_the_same() -> None:
    """Slice and Reshape are emitted as such; ONNX Runtime must give what PyTorch gives."""

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = HeadRMSNorm(4, 1e-5)

        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return keep_last(self.norm(x), keep)

    module = Module().eval().requires_grad_(False)
    module.norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        module,
        (x, torch.tensor([1])),
        dynamo=True,
        opset_version=23,
        dynamic_shapes=({0: Dim("batch"), 1: Dim("new")}, None),
        input_names=["x", "keep"],
        optimize=False,
        verbose=False,
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for keep in (0, 1, 4, 5, 9):
        (kept,) = session.run(None, {"x": x.numpy(), "keep": np.array([keep])})
        expected = module(x, torch.tensor([keep]))
        assert kept.shape == expected.shape == (2, min(keep or 5, 5), 12)
        np.testing.assert_allclose(kept, expected.numpy(), rtol=0, atol=1e-6)
