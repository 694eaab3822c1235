"""Which weights of a checkpoint lie one after another in a matrix that a bundle multiplies by."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgekit.checkpoint import Checkpoint
from edgekit.errors import BundleError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

#: Products of several projections of one input, and the projections whose rows lie one after another in them. Other
#: packed products join the names of theirs by "+".
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def weights_of(name: str) -> list[str]:
    """The weights whose rows the matrix of module `name` has."""
    scope, dot, last = name.rpartition(".")
    return [f"{scope}{dot}{part}.weight" for part in PACKED.get(last, last.split("+"))]


def parts_of(
    name: str, shape: tuple[int, int], checkpoint: Checkpoint, node: onnx.NodeProto
) -> Iterator[tuple[str, slice, int]]:
    """(checkpoint name, rows, inputs) of each weight in the stored matrix [rows, columns] of module `name`.

    Raises:
        BundleError: it is no matrix of the checkpoint, or one of other sizes.
    """
    names = weights_of(name)
    known = set(checkpoint.names())
    start = 0
    for part in names:
        original = EMBEDDING if part == HEAD and HEAD not in known else part
        if original not in known:
            raise unreadable(node, f"the checkpoint has no weight {original}")
        outputs, inputs = checkpoint.spec(original).shape
        sums = shape[1] - inputs
        if sums < 0 or (sums and inputs % sums):
            raise unreadable(node, f"it has {shape[1]} columns, {part} has {inputs}")
        yield part, slice(start, start + outputs), inputs
        start += outputs
    if start != shape[0]:
        raise unreadable(node, f"it has {shape[0]} rows, {', '.join(names)} together {start}")


def unreadable(node: onnx.NodeProto, reason: str) -> BundleError:
    """For a node whose weights cannot be told."""
    return BundleError(
        "parity must be able to read every quantised weight of a bundle",
        f"{node.op_type} {node.name!r}: {reason}",
        "export the bundle again with this version of edgekit",
    )
