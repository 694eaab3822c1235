"""A linear layer whose weight is a contracted tensor train plus a sparse residual."""

from __future__ import annotations

from edgekit.ops.spec import Attribute, Axis, Form, Operand, OpSpec
from edgekit.ops.specs._cache import DTYPES, PLUGIN, TOLERANCES

_PAIR, _BIAS = (("low_rank", 1),), (("bias", 1),)

SPEC = OpSpec(
    name="TTSparseLinear",
    version=1,
    stem="tt_sparse_linear",
    summary="y = x A^T B + x S^T + bias: a contracted tensor train and a sparse residual, without the dense weight",
    source="the contracted form of a tensor train (edgekit.compress.saten.pieces.Pair) and a residual with as many"
    " entries in each row",
    axes=(
        Axis("B", "batch"),
        Axis("S", "tokens"),
        Axis("K", "inputs of the layer, at most 65536"),
        Axis("O", "outputs of the layer"),
        Axis("R", "rank of the pair"),
        Axis("Z", "entries of each row of the residual, even"),
    ),
    inputs=(
        Operand("x", "inputs", (Form(("B", "S", "K")),)),
        Operand("a", "the first half of the train, contracted and transposed", (Form(("R", "K"), _PAIR),)),
        Operand("b", "the second half of the train, contracted", (Form(("R", "O"), _PAIR),)),
        Operand(
            "columns",
            "entry 2i of a row is in the column of the low 16 bits of word i, entry 2i + 1 in that of the high 16 bits;"
            " the columns of a row are distinct; one beyond K is refused on the CPU, NaN on a GPU",
            (Form(("O", "Z/2")),),
            dtype="int32",
        ),
        Operand("values", "of the residual; 0 for an absent entry", (Form(("O", "Z")),)),
        Operand("bias", "added to each token", (Form(("O",), _BIAS),)),
    ),
    outputs=(Operand("y", "outputs", (Form(("B", "S", "O")),)),),
    attributes=(
        Attribute("low_rank", "int", "1: there is a pair; 0: the residual alone", variant=True),
        Attribute("bias", "int", "1: there is a bias", variant=True),
        Attribute("factor_bits", "int", "0: the pair is of the graph's type; others are reserved", value=0),
        Attribute("value_bits", "int", "0: the values are of the graph's type; others are reserved", value=0),
        *PLUGIN,
    ),
    dtypes=DTYPES,
    tolerances=TOLERANCES,
)
