"""Tiny checkpoints with known weights, written with the libraries of their formats' authors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Weights = dict[str, npt.NDArray[np.float32]]

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 2, 64, 4, 2, 16, 96, 300
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEXT = "the quick brown fox jumps over 13 lazy dogs, doesn't it? na\u00efve caf\u00e9s \u2014 \u4f60\u597d 12345 "

ARCHS = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}


def _linear_names(layer: int) -> dict[str, tuple[int, int]]:
    p = f"model.layers.{layer}."
    return {
        f"{p}self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
        f"{p}self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
        f"{p}self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
        f"{p}self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
        f"{p}mlp.gate_proj.weight": (FFN, HIDDEN),
        f"{p}mlp.up_proj.weight": (FFN, HIDDEN),
        f"{p}mlp.down_proj.weight": (HIDDEN, FFN),
    }


def _shapes(architecture: str, biases: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        linear = _linear_names(layer)
        shapes |= linear
        if biases:
            shapes |= {
                f"{n.removesuffix('weight')}bias": (s[0],)
                for n, s in linear.items()
                if n[-13:-7] in ("q_proj", "k_proj", "v_proj")
            }
        p = f"model.layers.{layer}."
        norms = ["input_layernorm", "post_attention_layernorm"]
        if architecture == "gemma3":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        shapes |= {f"{p}{norm}.weight": (HIDDEN,) for norm in norms}
        if architecture in ("qwen3", "gemma3"):
            shapes |= {f"{p}self_attn.{n}_norm.weight": (HEAD_DIM,) for n in "qk"}
    return shapes


def make_weights(architecture: str, seed: int = 0, biases: bool = False) -> Weights:
    """Random weights under Hugging Face names."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
        for name, shape in _shapes(architecture, biases).items()
    }


def llama_cpp_permute(w: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """What llama.cpp's convert_hf_to_gguf.py does to the query and key weights of architecture llama."""
    shape = w.shape
    return w.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def train_byte_level(pre_tokenizer: Any = None) -> Tokenizer:
    """A byte-level BPE tokenizer of VOCAB tokens whose first ids are SPECIALS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT * 4], trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def byte_level_metadata(tokenizer: Tokenizer, pre: str | None = "smollm") -> dict[str, Any]:
    """tokenizer.ggml.* as llama.cpp's converter writes them."""
    import json

    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIALS else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    return metadata | ({} if pre is None else {"tokenizer.ggml.pre": pre})


@dataclass
class TinyGguf:
    """What to write. `metadata` overrides or, with None, removes what would be written; `raw` is stored as it is.

    `types` gives the GGML type of weights by Hugging Face name; others are F32.
    """

    architecture: str = "llama"
    weights: Weights | None = None
    types: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    extra_tensors: Weights = field(default_factory=dict)
    raw: dict[str, tuple[npt.NDArray[np.uint8], gguf.GGMLQuantizationType]] = field(default_factory=dict)


def _base_metadata(architecture: str) -> dict[str, Any]:
    a = architecture
    return {
        f"{a}.block_count": LAYERS,
        f"{a}.context_length": 128,
        f"{a}.embedding_length": HIDDEN,
        f"{a}.feed_forward_length": FFN,
        f"{a}.attention.head_count": HEADS,
        f"{a}.attention.head_count_kv": KV_HEADS,
        f"{a}.attention.key_length": HEAD_DIM,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{a}.rope.freq_base": 10000.0,
    }


def _add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if key == "general.alignment":
        writer.add_custom_alignment(value)
        return
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    adders.get(type(value), writer.add_array)(key, value)


def write_gguf(path: Path, tiny: TinyGguf) -> Path:
    """Writes the file as llama.cpp's converter would: GGUF names, permuted rows, shifted norms."""
    a = tiny.architecture
    writer = gguf.GGUFWriter(path, a)
    metadata = _base_metadata(a) | byte_level_metadata(train_byte_level()) | tiny.metadata
    for key, value in metadata.items():
        if value is not None:
            _add_value(writer, key, value)
    names = gguf.get_tensor_name_map(ARCHS[a], LAYERS)
    for name, weight in (make_weights(a) if tiny.weights is None else tiny.weights).items():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None, name
        if name in tiny.raw:
            data, kind = tiny.raw[name]
            writer.add_tensor(gguf_name, data, raw_dtype=kind)
            continue
        if a == "llama" and ("q_proj" in name or "k_proj" in name):
            weight = llama_cpp_permute(weight, HEADS if "q_proj" in name else KV_HEADS)
        if a == "gemma3" and "norm.weight" in name:
            weight = weight + 1
        kind = gguf.GGMLQuantizationType[tiny.types.get(name, "F32")]
        writer.add_tensor(gguf_name, gguf.quants.quantize(np.ascontiguousarray(weight), kind), raw_dtype=kind)
    for name, weight in tiny.extra_tensors.items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def gguf_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny GGUF file: gguf_file(architecture="llama", weights=..., types=..., metadata=..., ...)."""

    def write(name: str = "tiny.gguf", **what: Any) -> Path:
        return write_gguf(tmp_path / name, TinyGguf(**what))

    return write


@pytest.fixture
def weights_of() -> Callable[..., Weights]:
    """Random weights of an architecture under Hugging Face names: weights_of("llama", seed=0, biases=False)."""
    return make_weights


@pytest.fixture
def byte_level() -> Callable[..., Tokenizer]:
    """Trains a byte-level BPE tokenizer with the given pre-tokenizer."""
    return train_byte_level


@pytest.fixture
def tokenizer_metadata() -> Callable[..., dict[str, Any]]:
    """The GGUF metadata of a byte-level tokenizer: tokenizer_metadata(tokenizer, pre)."""
    return byte_level_metadata


@pytest.fixture
def hf_directory(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Hugging Face directory: hf_directory(weights, shards=1, config={...}, files={name: text or bytes})."""
    import json

    from safetensors.numpy import save_file

    def write(
        weights: dict[str, npt.NDArray[Any]],
        *,
        name: str = "model",
        shards: int = 1,
        config: dict[str, Any] | None = None,
        files: dict[str, str | bytes] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
        if shards == 1:
            save_file(weights, path / "model.safetensors")
        else:
            weight_map = {}
            for i in range(shards):
                shard = f"model-{i + 1:05}-of-{shards:05}.safetensors"
                part = dict(list(weights.items())[i::shards])
                save_file(part, path / shard)
                weight_map |= dict.fromkeys(part, shard)
            (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        for file, content in (files or {}).items():
            (path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
