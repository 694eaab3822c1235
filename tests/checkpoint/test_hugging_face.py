from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.errors import CheckpointError

INDEX = "model.safetensors.index.json"
Weights = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def weights(weights_of: Callable[..., Weights]) -> Weights:
    return weights_of("llama")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_come_back_bit_for_bit_in_their_own_type(
    hf_directory: Callable[..., Path], weights: Weights, dtype: str, shards: int
) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    stored = {name: weight.astype(kind) for name, weight in weights.items()}
    checkpoint = open_checkpoint(hf_directory(stored, shards=shards))
    assert sorted(checkpoint.names()) == sorted(stored)
    for name, weight in stored.items():
        array = checkpoint.array(name)
        assert array.dtype == kind
        assert array.flags.c_contiguous
        assert array.flags.aligned
        np.testing.assert_array_equal(array.view(np.uint8), weight.view(np.uint8))
        assert checkpoint.spec(name).dtype == dtype
        assert checkpoint.spec(name).nbytes == weight.nbytes
        assert checkpoint.blocks(name) is None


def test_a_directory_that_transformers_wrote(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    config = transformers.Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    model = transformers.Qwen2ForCausalLM(config)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config["model_type"] == "qwen2"
    state = model.state_dict()
    assert set(checkpoint.names()) == set(state) - {"lm_head.weight"}  # tied: stored once
    for name in checkpoint.names():
        np.testing.assert_array_equal(checkpoint.array(name), state[name].numpy())


def test_files_are_all_that_belongs_to_it(hf_directory: Callable[..., Path], weights: Weights) -> None:
    extra = {"tokenizer.json": "{}", "tokenizer_config.json": "{}", "README.md": "", "modeling.py": "raise SystemExit"}
    files = open_checkpoint(hf_directory(weights, shards=2, files=extra)).files()
    assert sorted(f["name"] for f in files) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        INDEX,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert next(f for f in files if f["name"] == "tokenizer.json") == {
        "name": "tokenizer.json",
        "bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # printf {} | sha256sum
    }


def test_the_rotary_buffer_of_old_checkpoints_is_no_weight(hf_directory: Callable[..., Path], weights: Weights) -> None:
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    assert sorted(open_checkpoint(hf_directory(weights | buffer)).names()) == sorted(weights)


def test_pickles_are_refused_and_the_way_out_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle") as error:
        open_checkpoint(tmp_path)
    assert "save_pretrained" in error.value.next_step


def test_a_directory_with_a_gguf_points_at_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path)
    assert str(tmp_path / "m.gguf") in error.value.next_step


def test_a_bundle_is_no_checkpoint(paper_bundle: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="is a bundle"):
        open_checkpoint(paper_bundle())


def test_an_empty_directory_and_one_without_config(
    hf_directory: Callable[..., Path], weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds neither"):
        open_checkpoint(tmp_path / "empty")
    path = hf_directory(weights)
    (path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "has None"),
        ('{"model_type": 3}', "has 3"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_config_is_refused(
    hf_directory: Callable[..., Path], weights: Weights, content: str, fact: str
) -> None:
    path = hf_directory(weights)
    (path / "config.json").write_text(content)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert fact in error.value.fact


def test_a_missing_shard_is_named(hf_directory: Callable[..., Path], weights: Weights) -> None:
    path = hf_directory(weights, shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00003\.safetensors"):
        open_checkpoint(path)


def test_a_truncated_shard_is_named(hf_directory: Callable[..., Path], weights: Weights) -> None:
    path = hf_directory(weights, shards=3)
    shard = path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors"):
        open_checkpoint(path)


def _edit_index(path: Path, change: Callable[[dict[str, str]], Any]) -> None:
    index = json.loads((path / INDEX).read_text())
    change(index["weight_map"])
    (path / INDEX).write_text(json.dumps(index))


def test_an_index_that_names_a_missing_tensor(hf_directory: Callable[..., Path], weights: Weights) -> None:
    path = hf_directory(weights, shards=2)
    _edit_index(path, lambda m: m.update(ghost="model-00001-of-00002.safetensors"))
    with pytest.raises(CheckpointError, match=r"it names 'ghost' in model-00001.* which lacks it \(1 such\)"):
        open_checkpoint(path)


def test_an_index_that_leaves_a_tensor_out(hf_directory: Callable[..., Path], weights: Weights) -> None:
    path = hf_directory(weights, shards=2)
    _edit_index(path, lambda m: m.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=r"does not name 'model\.norm\.weight'"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "file", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin", "..\\x.safetensors", 7]
)
def test_an_index_cannot_lead_out_of_its_directory(
    hf_directory: Callable[..., Path], weights: Weights, file: Any
) -> None:
    path = hf_directory(weights, shards=2)
    _edit_index(path, lambda m: m.update({"model.norm.weight": file}))
    with pytest.raises(CheckpointError, match="no shard's name"):
        open_checkpoint(path)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(hf_directory: Callable[..., Path], weights: Weights, content: str) -> None:
    path = hf_directory(weights, shards=2)
    (path / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match='has no "weight_map"'):
        open_checkpoint(path)


def test_an_unusable_dtype_is_named(hf_directory: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(hf_directory({"w": np.zeros((2, 2), np.int32)}))
    assert checkpoint.spec("w").dtype == "I32"
    with pytest.raises(CheckpointError, match="w is I32"):
        checkpoint.array("w")


def test_an_unknown_weight(hf_directory: Callable[..., Path], weights: Weights) -> None:
    checkpoint = open_checkpoint(hf_directory(weights))
    with pytest.raises(CheckpointError, match=r"no weight named 'model\.norm'"):
        checkpoint.array("model.norm")


def test_unaligned_data_is_copied(tmp_path: Path) -> None:
    import struct

    # safetensors pads its header; the format does not ask for it.
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * ((3 - len(header)) % 4)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -2))
    array = open_checkpoint(tmp_path).array("a")
    assert array.flags.aligned
    assert array.tolist() == [1.5, -2.0]
