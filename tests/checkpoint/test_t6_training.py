"""The training layout of T6, against a forward written from the published training code's definitions."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.t6_training import T6TrainingCheckpoint, write_t6_training_directory
from edgekit.errors import CheckpointError
from edgekit.models import registry

#: h odd, floor(8 * 20 / 3) = 53 unaligned.
THEIRS: dict[str, Any] = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 7,
    "head_dim": 6,
    "n_embd": 20,
    "rank": 2,
    "q_rank": 3,
    "vocab_size": 61,
    "block_size": 40,
    "using_groupnorm": False,
    "bias": False,
}
VARIANTS = {"factored": {}, "kv-only": {"kv_only": True}, "group-norm": {"using_groupnorm": True}}


def random_weights(config: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """A state dict as the training code saves it, head tied to the embedding."""
    c, generator = config, torch.Generator().manual_seed(5)
    d, h, e, ffn = c["n_embd"], c["n_head"], c["head_dim"], 8 * c["n_embd"] // 3
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (c["vocab_size"], d)}
    for i in range(c["n_layer"]):
        attn, mlp = f"transformer.h.{i}.attn", f"transformer.h.{i}.mlp"
        if c.get("kv_only"):
            shapes[f"{attn}.c_qkv.c_q.weight"] = (h * e, d)
        else:
            shapes[f"{attn}.c_qkv.W_A_q.weight"] = (h * c["q_rank"], d)
            shapes[f"{attn}.c_qkv.W_B_q.weight"] = (c["q_rank"] * e, d)
        for part in "kv":
            shapes[f"{attn}.c_qkv.W_A_{part}.weight"] = (h * c["rank"], d)
            shapes[f"{attn}.c_qkv.W_B_{part}.weight"] = (c["rank"] * e, d)
        shapes[f"{attn}.c_proj.weight"] = (d, h * e)
        if c["using_groupnorm"]:
            shapes[f"{attn}.subln.weight"] = (e,)
        shapes |= {f"{mlp}.c_fc1.weight": (ffn, d), f"{mlp}.c_fc2.weight": (ffn, d), f"{mlp}.c_proj.weight": (d, ffn)}
    weights = {
        name: (0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        for name, shape in shapes.items()
    }
    return weights | {"lm_head.weight": weights["transformer.wte.weight"]}


def write(directory: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    torch.save(weights, directory / "pytorch_model.bin")
    return directory


def training_forward(config: dict[str, Any], weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits [S, V] of ids [S] in the dtype of the weights, as the training code defines them."""
    c = config
    h, e = c["n_head"], c["head_dim"]
    tokens = len(ids)
    # Its rotary module: float32 angles, cosines and sines rounded to bfloat16.
    inverse = 1.0 / (10000 ** (torch.arange(0, e, 2).float() / e))
    angles = torch.outer(torch.arange(tokens).float(), inverse)
    x = weights["transformer.wte.weight"][ids]
    dtype = x.dtype
    cos, sin = (table.bfloat16().to(dtype)[:, None, :] for table in (angles.cos(), angles.sin()))

    def rms_norm(x: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()

    def rotated(x: Tensor) -> Tensor:
        x1, x2 = x[..., : e // 2], x[..., e // 2 :]
        return torch.cat((x1 * cos + x2 * sin, x1 * -sin + x2 * cos), -1)

    def product(x: Tensor, attn: str, part: str, rank: int) -> Tensor:
        a = (x @ weights[f"{attn}.c_qkv.W_A_{part}.weight"].T).view(tokens, h, rank)  # head-major
        b = (x @ weights[f"{attn}.c_qkv.W_B_{part}.weight"].T).view(tokens, rank, e)
        if part in "qk":
            b = rotated(b)
        return torch.bmm(a, b) / rank

    for i in range(c["n_layer"]):
        attn, mlp = f"transformer.h.{i}.attn", f"transformer.h.{i}.mlp"
        normed = rms_norm(x)
        if c.get("kv_only"):
            query = rotated((normed @ weights[f"{attn}.c_qkv.c_q.weight"].T).view(tokens, h, e))
        else:
            query = product(normed, attn, "q", c["q_rank"])
        key, value = product(normed, attn, "k", c["rank"]), product(normed, attn, "v", c["rank"])
        scores = torch.einsum("nhe,mhe->hnm", query, key) / e**0.5
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf)
        heads = torch.einsum("hnm,mhe->nhe", scores.softmax(-1), value)
        if c["using_groupnorm"]:
            variance = heads.pow(2).mean(-1, keepdim=True)
            heads = heads / (variance + 1e-5).sqrt() * weights[f"{attn}.subln.weight"]
        x = x + heads.reshape(tokens, h * e) @ weights[f"{attn}.c_proj.weight"].T
        normed = rms_norm(x)
        gate, up = (normed @ weights[f"{mlp}.{name}.weight"].T for name in ("c_fc1", "c_fc2"))
        x = x + (functional.silu(gate) * up) @ weights[f"{mlp}.c_proj.weight"].T
    return rms_norm(x) @ weights["lm_head.weight"].T


@pytest.fixture(params=VARIANTS)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return THEIRS | VARIANTS[request.param]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_logits_are_those_of_training(
    tmp_path: Path, config: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    weights = random_weights(config, torch.float32)
    checkpoint = open_checkpoint(write(tmp_path / "t6", config, weights))
    assert checkpoint.config["model_type"] == "t6"
    assert checkpoint.config["intermediate_size"] == 64  # 53, padded
    model = registry.model_from_checkpoint(checkpoint, dtype)
    ids = torch.randint(0, 61, (33,), generator=torch.Generator().manual_seed(6))
    mask = torch.ones(1, 33, dtype=torch.int64)
    found = model(ids[None], mask, model.empty_cache(1), torch.tensor([0])).logits[0]
    expected = training_forward(config, {name: w.to(dtype) for name, w in weights.items()}, ids)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, expected.abs().max().item()))


def test_every_trap_would_show(tmp_path: Path) -> None:
    """The oracle tells the wrong direction, unrounded tables, the other order of A and another epsilon apart."""
    weights = random_weights(THEIRS, torch.float32)
    weights["transformer.wte.weight"].mul_(1e-3)  # so that the epsilon counts
    checkpoint = open_checkpoint(write(tmp_path / "t6", THEIRS, weights))
    ids = torch.arange(30)
    expected = training_forward(THEIRS, {name: w.double() for name, w in weights.items()}, ids)

    def difference(**change: Any) -> float:
        checkpoint.config = {**original, **{k: v for k, v in change.items() if k != "swap"}}
        model = registry.model_from_checkpoint(checkpoint, torch.float64)
        if change.get("swap"):
            projection = model.model.layers[0].self_attn.k_a_proj.weight
            projection.copy_(projection.view(2, 7, 20).transpose(0, 1).reshape(14, 20).clone())
        mask = torch.ones(1, 30, dtype=torch.int64)
        logits = model(ids[None], mask, model.empty_cache(1), torch.tensor([0])).logits[0]
        return float((logits - expected).abs().max() / expected.abs().max())

    original = dict(checkpoint.config)
    assert difference() < 1e-10
    assert difference(rope_sign=1) > 1e-3
    assert difference(rope_table_dtype="float32") > 1e-5
    assert difference(rms_norm_eps=1e-5) > 1e-3
    assert difference(swap=True) > 1e-3


def test_padding_is_exact(tmp_path: Path) -> None:
    weights = random_weights(THEIRS, torch.float32)
    path = write(tmp_path / "t6", THEIRS, weights)
    logits = []
    for multiple in (1, 32, 100):
        checkpoint = T6TrainingCheckpoint(path, ffn_multiple=multiple)
        model = registry.model_from_checkpoint(checkpoint, torch.float64)
        mask = torch.ones(1, 9, dtype=torch.int64)
        logits.append(model(torch.arange(9)[None], mask, model.empty_cache(1), torch.tensor([0])).logits)
        down = checkpoint.array("model.layers.1.mlp.down_proj.weight")
        assert down.shape == (20, {1: 53, 32: 64, 100: 100}[multiple])
        assert not down[:, 53:].any()
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(logits[2], logits[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_round_trip_keeps_every_bit(tmp_path: Path, config: dict[str, Any], dtype: torch.dtype) -> None:
    weights = random_weights(config, dtype)
    checkpoint = open_checkpoint(write(tmp_path / "in", config, weights))
    arrays = {name: checkpoint.array(name) for name in checkpoint.names()}
    write_t6_training_directory(tmp_path / "out", checkpoint.config, arrays)
    back = torch.load(tmp_path / "out" / "pytorch_model.bin", weights_only=True)
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name].view(torch.uint8), tensor.view(torch.uint8)), name
    assert back["lm_head.weight"].data_ptr() == back["transformer.wte.weight"].data_ptr()
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = {name: value for name, value in config.items() if name != "kv_only"}
    if config.get("kv_only"):
        written.pop("q_rank"), expected.pop("q_rank")
    assert written == expected
    again = open_checkpoint(tmp_path / "out")
    assert again.config == checkpoint.config
    assert all(np.array_equal(again.array(n).view(np.uint8), a.view(np.uint8)) for n, a in arrays.items())


def test_a_gpt2_is_not_taken_for_a_t6(tmp_path: Path) -> None:
    gpt2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 11, "n_positions": 32}
    path = write(tmp_path / "gpt2", gpt2, {"transformer.wte.weight": torch.zeros(11, 8)})
    with pytest.raises(CheckpointError, match="pickle, which can run code"):
        open_checkpoint(path)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["zip", "plain"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, kind: str) -> None:
    path, marker = tmp_path / "t6", tmp_path / "ran"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(THEIRS))
    if kind == "zip":
        torch.save({"transformer.wte.weight": _Payload(marker)}, path / "pytorch_model.bin")
    else:
        (path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": _Payload(marker)}))
    with pytest.raises(CheckpointError, match="named tensors") as caught:
        open_checkpoint(path)
    assert "torch refuses it" in caught.value.fact
    assert not marker.exists()


def _without(name: str) -> Any:
    return lambda weights: weights.pop(name)


@pytest.mark.parametrize(
    ("config_change", "weights_change", "fact"),
    [
        ({"n_head": 0}, None, "n_head = 0"),
        ({"rank": "2"}, None, "rank = '2'"),
        ({"bias": True}, None, "bias = true"),
        ({"n_head": 5}, None, "W_A_k of the first layer has shape"),
        ({}, _without("transformer.h.1.attn.c_proj.weight"), "lacks transformer.h.1.attn.c_proj.weight"),
        ({}, _without("transformer.h.0.attn.c_qkv.W_B_v.weight"), "lacks transformer.h.0.attn.c_qkv.W_B_v"),
        (
            {},
            lambda w: w.update({"transformer.h.1.attn.c_qkv.W_A_v.weight": torch.zeros(13, 20)}),
            "[13, 20], not [14, 20]",
        ),
        ({}, lambda w: w.update({"transformer.h.1.mlp.c_proj.weight": torch.zeros(20, 70)}), "[20, 70], not [20, 53]"),
        ({}, lambda w: w.update({"transformer.h.0.mlp.c_fc1.weight": torch.zeros(53)}), "not [53, 20]"),
        ({}, lambda w: w.update(extra=torch.zeros(2)), "also holds extra"),
        ({}, lambda w: w.update({"lm_head.weight": torch.zeros(61, 20)}), "lm_head differs"),
        ({}, lambda w: w.update(ids=torch.zeros(2, dtype=torch.int32)), "ids is torch.int32"),
        ({}, lambda w: w.update(note="text"), "it holds something else"),
    ],
)
def test_refusals(tmp_path: Path, config_change: dict[str, Any], weights_change: Any, fact: str) -> None:
    weights: dict[str, Any] = random_weights(THEIRS, torch.float32)
    if weights_change is not None:
        weights_change(weights)
    path = write(tmp_path / "t6", THEIRS | config_change, weights)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert fact in caught.value.fact


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t6", THEIRS, random_weights(THEIRS, torch.float32))
    content = (path / "pytorch_model.bin").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no weights"):
        (path / "pytorch_model.bin").write_bytes(damaged)
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"contextual": "b"}, "contextual = both"),
        ({"norm_weights": True}, "norm_weights = False"),
        ({"rope_sign": 1}, "rope_sign = -1"),
        ({"value_rank": 3}, "value_rank = 2"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps = "),
        ({"intermediate_size": 40}, "hidden size is 53"),
    ],
)
def test_what_the_layout_cannot_express_is_not_written(tmp_path: Path, change: dict[str, Any], rule: str) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "in", THEIRS, random_weights(THEIRS, torch.float32)))
    arrays = {name: checkpoint.array(name) for name in checkpoint.names()}
    with pytest.raises(CheckpointError) as caught:
        write_t6_training_directory(tmp_path / "out", checkpoint.config | change, arrays)
    assert rule in caught.value.rule
    assert not (tmp_path / "out").exists()


def test_a_padding_that_is_not_zero_is_not_cut_off(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "in", THEIRS, random_weights(THEIRS, torch.float32)))
    arrays = {name: checkpoint.array(name) for name in checkpoint.names()}
    name = "model.layers.1.mlp.down_proj.weight"
    arrays[name] = arrays[name].copy()
    arrays[name][3, 60] = 1
    with pytest.raises(CheckpointError, match="is not zero"):
        write_t6_training_directory(tmp_path / "out", checkpoint.config, arrays)


def test_tokenizer_comes_from_the_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "t6", THEIRS, random_weights(THEIRS, torch.float32))
    checkpoint = open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        checkpoint.tokenizer_files()
    (path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in checkpoint.tokenizer_files()
    names = [record["name"] for record in checkpoint.files()]
    assert names == ["pytorch_model.bin", "config.json", "tokenizer.json"]
