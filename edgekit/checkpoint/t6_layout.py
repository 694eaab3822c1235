"""How the published T6 training code names and orders its weights, beside this project's names and orders.

There an A matrix is head-major (row head*R + r) and here rank-major (row r*H + head); B matrices are rank-major in both
(row r*D + e). The feed-forward hidden size floor(8 d / 3) is often unaligned (2730, 3413): rows and columns of zeros
may be added, which changes no output, since silu(0) * 0 = 0 feeds columns of zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.checkpoint.interface import Array
from edgekit.errors import CheckpointError

#: RMSNorm without a given epsilon uses that of the activations' dtype, which is float32 in the residual stream.
FLOAT32_EPS = 1.1920928955078125e-07
#: The normalisation of heads ("subln") has this one.
HEAD_NORM_EPS = 1e-5

_INTEGERS = ("n_layer", "n_head", "head_dim", "n_embd", "rank", "vocab_size", "block_size")


@dataclass(frozen=True)
class Place:
    """Where a weight stands in the training layout: key and shape, and the maps from there and back."""

    key: str
    shape: tuple[int, ...]
    load: Callable[[Array], Array]
    store: Callable[[Array], Array]


def is_training_config(config: dict[str, Any]) -> bool:
    """Whether a config.json is one of the training code. Its model_type is GPT-2's, its sizes are not."""
    return config.get("model_type") == "gpt2" and all(name in config for name in _INTEGERS)


def hidden_size_of_mlp(hidden_size: int) -> int:
    """floor(8 d / 3)."""
    return 8 * hidden_size // 3


def ffn_of(shapes: dict[str, tuple[int, ...]], hidden_size: int) -> int:
    """The unpadded feed-forward hidden size: that of the first layer, or the usual one where it is missing."""
    shape = shapes.get("transformer.h.0.mlp.c_fc1.weight", ())
    return shape[0] if len(shape) == 2 else hidden_size_of_mlp(hidden_size)


def config_from_training(theirs: dict[str, Any], shapes: dict[str, tuple[int, ...]], multiple: int) -> dict[str, Any]:
    """Our config.json for theirs.

    Args:
        shapes: the weights' shapes by their keys; variant and ranks are read off them.
        multiple: the feed-forward hidden size is rounded up to a multiple of this.

    Raises:
        CheckpointError: a size that is no positive integer, a bias, or weights that are not those of a T6.
    """
    for name in _INTEGERS:
        if type(theirs[name]) is not int or theirs[name] < 1:
            raise _not_a_t6(f"config.json has {name} = {theirs[name]!r}")
    if theirs.get("bias"):
        raise _not_a_t6("config.json has bias = true, which no published T6 has")
    heads, dim, hidden = theirs["n_head"], theirs["head_dim"], theirs["n_embd"]
    dense = "transformer.h.0.attn.c_qkv.c_q.weight" in shapes

    def rank(name: str, width: int) -> int:
        shape = shapes.get(f"transformer.h.0.attn.c_qkv.W_{name}.weight", ())
        if len(shape) != 2 or shape[0] % width or shape[1] != hidden:
            raise _not_a_t6(f"W_{name} of the first layer has shape {list(shape)}")
        return shape[0] // width

    ffn = ffn_of(shapes, hidden)
    ours: dict[str, Any] = {
        "model_type": "t6",
        "architectures": ["T6ForCausalLM"],
        "vocab_size": theirs["vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": -(-ffn // multiple) * multiple,
        "num_hidden_layers": theirs["n_layer"],
        "num_attention_heads": heads,
        "head_dim": dim,
        "query": "dense" if dense else "factored",
        "key_rank": rank("A_k", heads),
        "value_rank": rank("A_v", heads),
        "max_position_embeddings": theirs["block_size"],
        "rms_norm_eps": FLOAT32_EPS,
        "rope_theta": 10000.0,
        "rope_sign": -1,
        "rope_table_dtype": "bfloat16",
        "norm_weights": False,
        "head_norm": bool(theirs.get("using_groupnorm")),
        "tie_word_embeddings": True,
    }
    if not dense:
        ours["query_rank"] = rank("A_q", heads)
    return ours


def config_to_training(ours: dict[str, Any]) -> dict[str, Any]:
    """Their config.json for ours. Raises CheckpointError for a variant that their layout cannot express."""
    expected: dict[str, Any] = {
        "model_type": "t6",
        "contextual": "both",
        "shared_kv_b": False,
        "norm_weights": False,
        "rope_sign": -1,
        "rope_table_dtype": "bfloat16",
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "value_rank": ours.get("key_rank"),
    }
    given: dict[str, Any] = {"rms_norm_eps": (float(np.float32(ours["rms_norm_eps"])), FLOAT32_EPS)}
    if ours.get("head_norm"):
        given["head_norm_eps"] = (ours.get("head_norm_eps", HEAD_NORM_EPS), HEAD_NORM_EPS)
    for name, value in expected.items():
        given[name] = (ours.get(name, value), value)
    for name, (found, value) in given.items():
        if found != value:
            raise CheckpointError(
                f"in the training layout a T6 has {name} = {value}",
                f"this one has {found!r}",
                "keep it in this project's own layout",
            )
    if ours["intermediate_size"] < (ffn := hidden_size_of_mlp(ours["hidden_size"])):
        raise CheckpointError(
            f"in the training layout a T6's feed-forward hidden size is {ffn}",
            f"this one has {ours['intermediate_size']}",
            "keep it in this project's own layout",
        )
    return {
        "model_type": "gpt2",
        "n_layer": ours["num_hidden_layers"],
        "n_head": ours["num_attention_heads"],
        "head_dim": ours["head_dim"],
        "n_embd": ours["hidden_size"],
        "rank": ours["key_rank"],
        "q_rank": ours.get("query_rank", ours["key_rank"]),
        "vocab_size": ours["vocab_size"],
        "block_size": ours["max_position_embeddings"],
        "using_groupnorm": bool(ours.get("head_norm")),
        "bias": False,
    }


def places(config: dict[str, Any], ffn: int) -> dict[str, Place]:
    """Per weight of our configuration its place in the training layout; `ffn` is the unpadded hidden size there."""
    heads, padded = config["num_attention_heads"], config["intermediate_size"]

    def head_major(array: Array) -> Array:
        return np.ascontiguousarray(array.reshape(-1, heads, array.shape[-1]).swapaxes(0, 1).reshape(array.shape))

    def rank_major(array: Array) -> Array:
        return np.ascontiguousarray(array.reshape(heads, -1, array.shape[-1]).swapaxes(0, 1).reshape(array.shape))

    d, width = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    ranks = {"k": config["key_rank"], "v": config["value_rank"]}
    if config["query"] == "factored":
        ranks = {"q": config["query_rank"], **ranks}
    found = {"model.embed_tokens.weight": _kept("transformer.wte.weight", config["vocab_size"], d)}
    for i in range(config["num_hidden_layers"]):
        here, there = f"model.layers.{i}.self_attn", f"transformer.h.{i}.attn"
        if config["query"] == "dense":
            found[f"{here}.q_proj.weight"] = _kept(f"{there}.c_qkv.c_q.weight", width, d)
        for part, rank in ranks.items():
            key = f"{there}.c_qkv.W_A_{part}.weight"
            found[f"{here}.{part}_a_proj.weight"] = Place(key, (heads * rank, d), rank_major, head_major)
            key = f"{there}.c_qkv.W_B_{part}.weight"
            found[f"{here}.{part}_b_proj.weight"] = _kept(key, rank * config["head_dim"], d)
        found[f"{here}.o_proj.weight"] = _kept(f"{there}.c_proj.weight", d, width)
        if config.get("head_norm"):
            found[f"{here}.subln.weight"] = _kept(f"{there}.subln.weight", config["head_dim"])
        for ours, theirs, axis in (("gate", "c_fc1", 0), ("up", "c_fc2", 0), ("down", "c_proj", 1)):
            shape = (d, ffn) if axis else (ffn, d)
            place = Place(f"transformer.h.{i}.mlp.{theirs}.weight", shape, _padding(axis, padded), _cutting(axis, ffn))
            found[f"model.layers.{i}.mlp.{ours}_proj.weight"] = place
    return found


def _kept(key: str, *shape: int) -> Place:
    return Place(key, shape, _same, _same)


def _same(array: Array) -> Array:
    return array


def _padding(axis: int, size: int) -> Callable[[Array], Array]:
    def pad(array: Array) -> Array:
        missing = size - array.shape[axis]
        return np.pad(array, [(0, missing if i == axis else 0) for i in range(2)]) if missing else array

    return pad


def _cutting(axis: int, size: int) -> Callable[[Array], Array]:
    def cut(array: Array) -> Array:
        kept, rest = np.split(array, [size], axis)
        if rest.any():
            raise CheckpointError(
                f"in the training layout a T6's feed-forward hidden size is {size}",
                f"this one has {array.shape[axis]}, and what is beyond is not zero",
                "keep it in this project's own layout",
            )
        return np.ascontiguousarray(kept)

    return cut


def _not_a_t6(fact: str) -> CheckpointError:
    return CheckpointError(
        "a directory with the training code's config.json must hold a T6",
        fact,
        "check that config.json and pytorch_model.bin belong together",
    )
