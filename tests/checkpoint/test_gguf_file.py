from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.gguf_file import GgufCheckpoint
from edgekit.errors import CheckpointError

Q = "model.layers.0.self_attn.q_proj.weight"
K = "model.layers.1.self_attn.k_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"
TYPES = gguf.GGMLQuantizationType


def dequantizable_types() -> list[gguf.GGMLQuantizationType]:
    """All types of the gguf library that it can turn into float32."""
    found = []
    for kind, (_, block_bytes) in gguf.GGML_QUANT_SIZES.items():
        try:
            dequantize(np.zeros((1, block_bytes), np.uint8), kind)
        except NotImplementedError:
            continue
        found.append(kind)
    return found


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_every_weight_comes_back_under_its_hugging_face_name(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any], architecture: str
) -> None:
    weights = weights_of(architecture, biases=architecture in ("llama", "qwen2"))
    checkpoint = open_checkpoint(gguf_file(architecture=architecture, weights=weights))
    assert sorted(checkpoint.names()) == sorted(weights)
    # Gemma's norms are stored with 1 added in float32, which rounds.
    tolerance = 1e-7 if architecture == "gemma3" else 0
    for name, weight in weights.items():
        array = checkpoint.array(name)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_allclose(array, weight, rtol=0, atol=tolerance, err_msg=name)
        assert checkpoint.spec(name).shape == weight.shape
        assert checkpoint.spec(name).nbytes == weight.nbytes


def test_query_and_key_rows_are_permuted_in_the_file_for_llama_only(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any]
) -> None:
    for architecture, permuted in (("llama", True), ("qwen2", False)):
        weights = weights_of(architecture)
        path = gguf_file(f"{architecture}.gguf", architecture=architecture, weights=weights)
        stored = {t.name: t for t in gguf.GGUFReader(path).tensors}["blk.0.attn_q.weight"].data
        assert (not np.array_equal(stored, weights[Q])) == permuted
        np.testing.assert_array_equal(open_checkpoint(path).array(Q), weights[Q])


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_stored_types_are_dequantised_and_reordered(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any], kind: str
) -> None:
    weights = weights_of("llama")
    checkpoint = open_checkpoint(gguf_file(weights=weights, types={Q: kind, K: kind, UP: kind}))
    for name in (Q, K, UP):
        # Rows are quantised one by one, so reordering them and quantising them commute.
        expected = dequantize(quantize(weights[name], TYPES[kind]), TYPES[kind])
        np.testing.assert_array_equal(checkpoint.array(name), expected)
    expected_name = {"F16": "float16", "BF16": "bfloat16"}.get(kind, kind)
    assert checkpoint.spec(UP).dtype == expected_name


@pytest.mark.parametrize("kind", dequantizable_types(), ids=lambda kind: kind.name)
def test_every_type_of_the_gguf_library_is_read(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any], kind: gguf.GGMLQuantizationType
) -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    width = 256
    raw = np.random.default_rng(1).integers(0, 256, (64, width // block * block_bytes), np.uint8)
    # The width contradicts the configuration, which only the model checks.
    checkpoint = open_checkpoint(gguf_file(weights=weights_of("llama"), raw={UP: (raw, kind)}))
    assert checkpoint.spec(UP).shape == (64, width)
    with np.errstate(all="ignore"):  # random scales may be infinite
        expected = dequantize(raw, kind)
        np.testing.assert_array_equal(checkpoint.array(UP), expected.reshape(64, width))


def test_a_type_that_the_gguf_library_cannot_dequantise_is_refused(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any]
) -> None:
    raw = np.zeros((64, 2 * 40), np.uint8)
    path = gguf_file(weights=weights_of("llama"), raw={UP: (raw, TYPES.Q8_1)})
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight is Q8_1"):
        open_checkpoint(path)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_give_the_stored_integers_in_the_order_of_array(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any], kind: str
) -> None:
    weights = weights_of("llama")
    checkpoint = open_checkpoint(gguf_file(weights=weights, types={Q: kind, UP: kind}))
    for name in (Q, UP):
        blocks = checkpoint.blocks(name)
        assert blocks is not None
        rows, width = weights[name].shape
        assert blocks.codes.shape == (rows, width // 32, 32)
        assert blocks.scale.shape == (rows, width // 32)
        assert blocks.codes.dtype == (np.int8 if kind == "Q8_0" else np.uint8)
        assert blocks.scale.dtype == np.float32
        assert (blocks.bits, blocks.zero_point) == {"Q4_0": (4, 8), "Q4_1": (4, 0), "Q8_0": (8, 0)}[kind]
        assert (blocks.minimum is not None) == (kind == "Q4_1")
        assert kind == "Q8_0" or int(blocks.codes.max()) <= 15
        value = blocks.scale[..., None] * (blocks.codes.astype(np.float32) - blocks.zero_point)
        if blocks.minimum is not None:
            value = value + blocks.minimum[..., None]
        np.testing.assert_array_equal(value.reshape(rows, width), checkpoint.array(name))


def test_blocks_are_none_for_other_types_and_vectors(
    gguf_file: Callable[..., Path], weights_of: Callable[..., Any]
) -> None:
    checkpoint = open_checkpoint(gguf_file(weights=weights_of("llama"), types={Q: "F16", UP: "Q5_0"}))
    assert checkpoint.blocks(Q) is None
    assert checkpoint.blocks(UP) is None
    assert checkpoint.blocks("model.norm.weight") is None


def test_unquantised_weights_are_views_of_the_mapped_file(gguf_file: Callable[..., Path]) -> None:
    array = open_checkpoint(gguf_file()).array(UP)
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_an_unknown_weight_is_named_with_its_neighbours(gguf_file: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(gguf_file())
    for read in (checkpoint.array, checkpoint.spec, checkpoint.blocks):
        with pytest.raises(CheckpointError, match=r"q_proj\.weigth") as error:
            read("model.layers.0.self_attn.q_proj.weigth")
        assert Q in error.value.next_step


def test_a_tensor_that_the_architecture_does_not_have_is_an_error(gguf_file: Callable[..., Path]) -> None:
    expert = {"blk.0.ffn_gate_inp.weight": np.zeros((8, 64), np.float32)}
    with pytest.raises(CheckpointError, match=r"ffn_gate_inp\.weight") as error:
        open_checkpoint(gguf_file(extra_tensors=expert))
    assert "mixture of experts" in error.value.next_step


def test_a_split_file_is_refused_with_the_way_to_join_it(gguf_file: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="one of 3 parts") as error:
        open_checkpoint(gguf_file(metadata={"split.count": 3}))
    assert "llama-gguf-split --merge" in error.value.next_step


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("mamba", "../llama", "table"):
        writer = gguf.GGUFWriter(tmp_path / "other.gguf", name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with pytest.raises(CheckpointError, match="gemma3, llama, qwen2, qwen3"):
            open_checkpoint(tmp_path / "other.gguf")


def test_files_names_size_and_hash(gguf_file: Callable[..., Path]) -> None:
    import hashlib

    path = gguf_file()
    content = path.read_bytes()
    expected = {"name": "tiny.gguf", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert open_checkpoint(path).files() == [expected]


def test_an_unaligned_file_is_read(gguf_file: Callable[..., Path], weights_of: Callable[..., Any]) -> None:
    weights = weights_of("llama")
    path = gguf_file(weights=weights, metadata={"general.alignment": 1})
    checkpoint = GgufCheckpoint(path)
    for name, weight in weights.items():
        np.testing.assert_array_equal(checkpoint.array(name), weight)
        assert checkpoint.array(name).flags.aligned
