"""edgekit::CausalAttention → standard ONNX whose cache is a buffer, written in place by TensorScatter.

TensorRT 10.15 and newer make KV_CACHE_UPDATE of it: past and present are one memory, and a step moves no old token. Its
layer takes a buffer of a fixed capacity only, which is therefore a number in the graph
(https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/KVCacheUpdate.html).

Where the new tokens go is computed from the numbers in the attention mask and not from its length. The mask may then be
longer than the tokens, with -1 in the slots after them, so that the shapes of a step stay the same for many tokens and
a CUDA graph can hold it.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from edgekit import contract
from edgekit.rewrite.rule import Context, Outcome, Rule, forbid_op
from edgekit.rewrite.rules.lower_attention import Masks, lower

#: The first that has TensorScatter.
OPSET = 24


class MasksOfSlots(Masks):
    """The mask int64 [B, M] holds 1 for real tokens, 0 for padding and -1 for slots after the tokens."""

    def _positions(self) -> gs.Variable:
        used = self.node("GreaterOrEqual", [self._mask, self.ints(0)], "mask.used")
        used = self.node("Cast", [used], "mask.used_slots", to=np.int64)
        tokens = self.node("ReduceSum", [used, self.ints(1)], "mask.tokens", keepdims=1)
        past = self.node("Sub", [tokens, self.sequence], "mask.past")
        #: the slot at which each row's new tokens begin, int64 [B]
        self.begin = self.node("Squeeze", [past, self.ints(1)], "mask.begin")
        #: the slots of the new tokens, int64 [B, S]
        self.slots = self.node("Add", [past, self.range(self.sequence, "mask.new")], "mask.new_slots")
        real = self.node("Max", [self._mask, self.ints(0)], "mask.real")
        real.dtype = np.dtype(np.int64)
        counted = self.counted(real)
        return self.node("GatherElements", [counted, self.slots], "mask.positions", axis=1)

    def _query_slots(self, slots: gs.Variable, stem: str) -> gs.Variable:
        """[B, 1, S, 1]"""
        return self.node("Unsqueeze", [self.slots, self.ints(1, 3)], stem + ".query_column")


def apply(graph: gs.Graph, context: Context) -> Outcome:
    capacity = context.capacity or contract.AXIS_CAPACITY
    outcome = lower(graph, context, MasksOfSlots, _written)
    if not outcome.fired:
        return outcome
    for tensor in (*graph.inputs, *graph.outputs):
        suffix = tensor.name.rpartition(".")[2]
        if suffix in (contract.KEY, contract.VALUE):
            tensor.shape = [capacity if axis == 2 else size for axis, size in enumerate(tensor.shape)]
        elif tensor.name == contract.ATTENTION_MASK:
            tensor.shape = [tensor.shape[0], contract.AXIS_SLOTS]
    graph.opset = max(graph.opset, OPSET)
    graph.import_domains = [
        onnx.helper.make_opsetid("", graph.opset) if entry.domain in ("", "ai.onnx") else entry
        for entry in graph.import_domains or []
    ] or None
    return outcome


def _written(masks: Masks, past: gs.Tensor, new: gs.Tensor, present: gs.Tensor) -> gs.Tensor:
    """Of the buffer, only the slots that the mask covers are attended to."""
    assert isinstance(masks, MasksOfSlots)
    inputs = [past, new, masks.begin]
    masks.add(gs.Node("TensorScatter", name=present.name, attrs={"axis": 2}, inputs=inputs, outputs=[present]))
    return masks.node("Slice", [present, masks.ints(0), masks.total, masks.ints(2)], present.name + ".covered")


RULE = Rule(
    name="lower_attention_in_place",
    requires="an edgekit::CausalAttention in each layer",
    ensures="attention is spelled in standard operators, over buffers that are written in place",
    apply=apply,
    expected=lambda context: context.geometry.causal_attentions,
    check=forbid_op("CausalAttention"),
)
