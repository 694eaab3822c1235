"""A linear layer whose weight is codes of few bits, a contracted tensor train and a sparse residual, as stored."""

from __future__ import annotations

from edgekit.ops.shapes import Sizes
from edgekit.ops.spec import Attribute, Attributes, Axis, Form, Operand, OpSpec
from edgekit.ops.specs._cache import DTYPES, PLUGIN, TOLERANCES

#: Values of `residual`: where the entries stand.
NOTHING, COLUMNS, BITMAP, GROUPS = 0, 1, 2, 3
#: Values of `factor_bits` and `value_bits`: the graph's type, float16, or codes with scales.
PLAIN, HALF, CODES = 0, 16, (8, 4)
#: Inputs to a group of `residual` GROUPS.
GROUP = 4
#: What 16-bit columns reach.
MOST_INPUTS = 2**16
#: Values of `base_bits`; 0 for none.
BASES = (2, 3, 4)
#: Outputs of a tile of the base, and inputs of a chunk: what its codes are grouped by.
TILE, CHUNK = 16, 32
#: Inputs to a scale of the base, at most.
MOST_BLOCK = 128
#: Values of `input_bits`.
EXACT, ROUNDED = 24, 16

_BIAS = (("bias", 1),)


_PAIR, _RESIDUAL, _BASE = ("low_rank", 1), ("residual", (COLUMNS, BITMAP, GROUPS)), ("base_bits", BASES)


def _numbers(
    bits: str, there: tuple[str, int | tuple[int, ...]], dims: tuple[str, ...], words: str
) -> tuple[Form, ...]:
    """An array in the graph's type or in float16, or flat words of codes."""
    plain, half = Form(dims, (there, (bits, PLAIN))), Form(dims, (there, (bits, HALF)), "float16")
    return plain, half, Form((words,), (there, (bits, CODES)), "int32")


def _possible(values: Attributes) -> bool:
    """There is something to multiply by, and what is not there has no bits."""
    there = values["low_rank"] or values["residual"] or values["base_bits"]
    needs = (("factor_bits", "low_rank"), ("value_bits", "residual"), ("zero_points", "base_bits"))
    return bool(there) and all(values[what] or not values[bits] for bits, what in needs)


def _derive(sizes: Sizes) -> Sizes:
    """ValueError where the residual has no entries that it needs; the rest is checked by the shapes."""
    if "I_W" in sizes and sizes["E"] < 1:
        raise ValueError(f"a residual must have entries, and there are {sizes['E']}")
    return {}


_CODES = "codes are packed without gaps, row by row, the lowest bits first, from low to high in each word"
_BASE_MEANING = (
    "codes of the base, [tile of 16 outputs, chunk of 32 inputs, base_bits words, row of the tile], outputs filled up"
    " to whole tiles and inputs to whole blocks with anything. Byte b of word w, from the lowest bits: 2 or 4 bits:"
    " field f is the code of input 32/base_bits w + 4 f + b of the chunk. 3 bits: fields 0 and 1 of 3 bits are those"
    " of inputs 8 w + 4 f + b, and the upper two bits of words 0 and 1 are the lower two of inputs 24 + b and 28 + b,"
    " whose third are bits 6 and 7 of word 2"
)

SPEC = OpSpec(
    name="TTSparseLinear",
    version=1,
    stem="tt_sparse_linear",
    summary="y = x Q^T + x A^T B + x S^T + bias: a base of few bits, a contracted tensor train and a sparse residual,"
    " without the dense weight",
    source="block-quantised weights (edgekit.compress.saten.pieces.Base), the contracted form of a tensor train (Pair"
    " there) and a sparse residual (edgekit.compress.saten.sparse_format) in the numbers in which"
    " edgekit.compress.saten.storage keeps them",
    axes=(
        Axis("B", "batch"),
        Axis("S", "tokens"),
        Axis("K", "inputs of the layer; at most 65536 for positions by columns"),
        Axis("O", "outputs of the layer"),
        Axis("R", "rank of the pair; 0 without one"),
        Axis("E", "entries of the residual; 0 without one"),
        Axis("A_W", "words of the codes of a"),
        Axis("A_S", "scales of a: R K / factor_block, rounded up"),
        Axis("B_W", "words of the codes of b"),
        Axis("B_S", "scales of b: R O / factor_block, rounded up"),
        Axis("I_W", "words of the positions"),
        Axis("V_W", "words of the codes of the values"),
        Axis("V_S", "scales of the values: E / value_block, rounded up"),
        Axis("Q_W", "words of the base's codes: O' K' base_bits / 32; O' and K' are O and K rounded up, see base"),
        Axis("Q_S", "scales of the base: O' K' / base_block"),
        Axis("Q_Z", "words of its zero points: O' K' / base_block base_bits / 32, rounded up"),
    ),
    inputs=(
        Operand("x", "inputs", (Form(("B", "S", "K")),)),
        Operand(
            "a",
            f"the first half of the train, contracted and transposed: [R, K]; {_CODES}",
            _numbers("factor_bits", _PAIR, ("R", "K"), "A_W"),
        ),
        Operand(
            "a_scales",
            "of a block of factor_block numbers of a, flattened: a number is scale (code - 2^(bits-1))",
            (Form(("A_S",), (_PAIR, ("factor_bits", CODES))),),
            dtype="float16",
        ),
        Operand(
            "b",
            "the second half of the train, contracted: [R, O]; codes as of a",
            _numbers("factor_bits", _PAIR, ("R", "O"), "B_W"),
        ),
        Operand(
            "b_scales",
            "of b, as of a",
            (Form(("B_S",), (_PAIR, ("factor_bits", CODES))),),
            dtype="float16",
        ),
        Operand(
            "starts",
            "how many entries the rows before each have; entries of a row stand in the order of their columns",
            (Form(("O",), (("residual", (COLUMNS, BITMAP)),)),),
            dtype="int32",
        ),
        Operand(
            "positions",
            "residual 1: the 16-bit column of each entry, distinct in a row; 2: a bit for each of O K weights, row by"
            " row; 3: the 2-bit place of each entry among 4 inputs; the lowest bits first. Columns beyond K and rows"
            " with more or fewer bits than entries are refused on the CPU, and make NaN on a GPU",
            (Form(("I_W",), (_RESIDUAL,)),),
            dtype="int32",
        ),
        Operand(
            "values", "of the entries, row by row; codes as of a", _numbers("value_bits", _RESIDUAL, ("E",), "V_W")
        ),
        Operand(
            "value_scales",
            "of a block of value_block values, as of a",
            (Form(("V_S",), (_RESIDUAL, ("value_bits", CODES))),),
            dtype="float16",
        ),
        Operand("base", _BASE_MEANING, (Form(("Q_W",), (_BASE,)),), dtype="int32"),
        Operand(
            "base_scales",
            "[tile, block, row]: a weight is scale (code - zero point)",
            (Form(("Q_S",), (_BASE,)),),
            dtype="float16",
        ),
        Operand(
            "base_zeros",
            "zero points of tile and block as base_bits planes of 16 bits: bit r of plane p is bit p of row r's;"
            " where there are none they are 2^(base_bits-1)",
            (Form(("Q_Z",), (_BASE, ("zero_points", 1))),),
            dtype="int32",
        ),
        Operand("bias", "added to each token", (Form(("O",), _BIAS),)),
    ),
    outputs=(Operand("y", "outputs", (Form(("B", "S", "O")),)),),
    attributes=(
        Attribute("out_features", "int", "outputs of the layer", axis="O"),
        Attribute("rank", "int", "rank of the pair", value=0, axis="R"),
        Attribute("entries", "int", "entries of the residual", value=0, axis="E"),
        Attribute("low_rank", "int", "1: there is a pair; 0: none", variant=True),
        Attribute("bias", "int", "1: there is a bias", variant=True),
        Attribute(
            "residual",
            "int",
            "0: none; positions by 1: columns, 2: a bitmap, 3: places in groups of 4 inputs",
            variant=True,
            choices=(NOTHING, COLUMNS, BITMAP, GROUPS),
        ),
        Attribute(
            "factor_bits",
            "int",
            "0: the pair is of the graph's type; 16: float16; 8 or 4: codes with scales",
            variant=True,
            value=PLAIN,
            choices=(PLAIN, HALF, *CODES),
        ),
        Attribute(
            "value_bits",
            "int",
            "of the residual's values, as factor_bits",
            variant=True,
            value=PLAIN,
            choices=(PLAIN, HALF, *CODES),
        ),
        Attribute(
            "base_bits",
            "int",
            "of the base's codes; 0: there is none",
            variant=True,
            value=0,
            choices=(0, *BASES),
        ),
        Attribute("zero_points", "int", "1: the base has zero points; 0: none, or no base", variant=True, value=0),
        Attribute("factor_block", "int", "numbers of a or of b to a scale, a multiple of 16", value=64),
        Attribute("value_block", "int", "values to a scale, a multiple of 16", value=64),
        Attribute("group_kept", "int", "entries to a group of 4 inputs", value=2),
        Attribute("base_block", "int", "inputs to a scale of the base: 32, 64, 96 or 128", value=64),
        Attribute(
            "input_bits",
            "int",
            "what a kernel for the base may round inputs to, by their block's largest: 24, as float32 does, or 16 bits",
            value=EXACT,
        ),
        *PLUGIN,
    ),
    dtypes=DTYPES,
    tolerances=TOLERANCES,
    derive=_derive,
    possible=_possible,
    mixes=True,
)
