"""Bytes of weights, by arithmetic of their own."""

from __future__ import annotations

from edgekit.compress.quantizer import KEEP_8BIT
from edgekit.export.options import DTYPES as EXPORTED
from edgekit.export.options import ExportOptions
from edgekit.plan.model_sizes import ModelSizes
from edgekit.plan.storage import BLOCK, DTYPES, Compression, read_bytes, weight_bytes

NOTHING = Compression()


def test_types_and_layout_are_those_of_the_exporter() -> None:
    assert DTYPES == EXPORTED
    options = {dtype: ExportOptions(dtype=dtype, form="tensorrt") for dtype in DTYPES}
    assert options["int4"].block == BLOCK
    assert {dtype: option.activations for dtype, option in options.items()} == {
        "fp32": "float32",
        "fp16": "float16",
        "int8": "float16",
        "int4": "float16",
    }
    assert KEEP_8BIT == ("lm_head",)


def test_half_precision_is_two_bytes_a_parameter_and_two_tables(smollm2: ModelSizes) -> None:
    # 134,515,008 parameters, and cosines and sines of 32 columns for 1,000 positions.
    assert weight_bytes(smollm2, "fp16", 1000, NOTHING).value == 2 * (134_515_008 + 2 * 32 * 1000)
    assert weight_bytes(smollm2, "fp32", 1000, NOTHING).value == 4 * (134_515_008 + 2 * 32 * 1000)
    # The head is the embedding: all of it is read. Tables are looked up.
    assert read_bytes(smollm2, "fp16", NOTHING).value == 2 * 134_515_008


def test_an_embedding_beside_a_head_is_not_read(llama_2_7b: ModelSizes) -> None:
    assert read_bytes(llama_2_7b, "fp16", NOTHING).value == 2 * (6_738_415_616 - 32000 * 4096)


def test_8_bits_have_a_half_precision_scale_per_output(llama_2_7b: ModelSizes) -> None:
    norms = 65 * 4096
    layers = 6_738_415_616 - 2 * 32000 * 4096 - norms
    outputs = 32 * (4 * 4096 + 2 * 11008 + 4096)
    head, table = 32000 * 4096 + 2 * 32000, 2 * 32000 * 4096
    expected = layers + 2 * outputs + head + table + 2 * norms
    assert weight_bytes(llama_2_7b, "int8", 0, NOTHING).value == expected


def test_4_bits_lie_between_all_and_one_third_of_the_layers_at_4(llama_2_7b: ModelSizes) -> None:
    found = weight_bytes(llama_2_7b, "int4", 0, NOTHING)
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    at_8 = weight_bytes(llama_2_7b, "int8", 0, NOTHING).value
    scales = 2 * 32 * (4 * 4096 + 2 * 11008 + 4096)
    # 4.25 bits a weight: a float16 scale for each 64.
    assert found.low == at_8 - layers - scales + layers * (0.5 + 2 / 64)
    assert found.low < found.value < found.high < at_8
    all_kept = weight_bytes(llama_2_7b, "int4", 0, Compression(share_at_8_bits=1.0))
    assert all_kept.low == all_kept.value == all_kept.high == at_8


def test_terms_for_drafts_and_tensor_trains(llama_2_7b: ModelSizes) -> None:
    plain = read_bytes(llama_2_7b, "fp16", NOTHING).value
    assert read_bytes(llama_2_7b, "fp16", Compression(draft_head_bytes=12345)).value == plain + 12345
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    # 2:4 in half precision is 1.125 bytes a weight; head and norms stay.
    saten = read_bytes(llama_2_7b, "fp16", Compression(saten_bytes_per_weight=1.125)).value
    assert saten == plain - 2 * layers + 1.125 * layers
