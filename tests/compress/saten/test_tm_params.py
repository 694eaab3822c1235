from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.compress.saten.factorisation import factorisation
from edgekit.compress.saten.sparse import sparsity_named
from edgekit.compress.saten.tensor_train import tensor_train
from edgekit.compress.saten.tm_params import TrainedLayer, read_tm_params, write_tm_params
from edgekit.errors import CheckpointError
from tests.compress.saten.matrices import random, toy

NAMES = ["model.layers.0.mlp.up_proj", "model.layers.0.self_attn.q_proj"]


def layer(outputs: int, inputs: int, bias: bool) -> TrainedLayer:
    weight = toy(outputs, inputs)
    train = tensor_train(weight.T, factorisation(inputs, outputs, 4), epsilon=0.5)
    residual = weight - train.matrix().T
    mask = sparsity_named("2:4").mask(residual.abs())
    return TrainedLayer(train, residual, mask, random(outputs) if bias else None)


def entry() -> dict[str, Any]:
    """As the training code saves it: X = Wᵀ of a layer 12 → 8, by hand."""
    cores = [random(1, 3, 2), random(2, 4, 5, seed=1), random(5, 2, 3, seed=2), random(3, 4, 1, seed=3)]
    return {
        "factors": cores,
        "weight": random(8, 12, seed=4),
        "mask": (random(8, 12, seed=5) > 0).double(),
        "bias": None,
        "in_features": 12,
        "out_features": 8,
        "dim_list": [3, 4, 2, 4],
        "rank_list": [1, 2, 5, 3, 1],
        "tensor_type": "tt",
    }


def test_round_trip(tmp_path: Path) -> None:
    layers = {NAMES[0]: layer(48, 24, True), NAMES[1]: layer(24, 24, False)}
    write_tm_params(tmp_path / "tm_params.pth", layers)
    back = read_tm_params(tmp_path / "tm_params.pth")
    assert list(back) == NAMES
    for name, given in layers.items():
        found = back[name]
        assert found.train.shape == given.train.shape
        assert torch.equal(found.dense(), given.dense())
        assert torch.equal(found.mask, given.mask)
        assert (found.bias is None) == (given.bias is None)
    assert torch.equal(back[NAMES[0]].bias, layers[NAMES[0]].bias)
    assert [path.name for path in tmp_path.iterdir()] == ["tm_params.pth"]


def test_a_layer_by_hand(tmp_path: Path) -> None:
    given = entry()
    torch.save({"a": given}, tmp_path / "tm_params.pth")
    found = read_tm_params(tmp_path / "tm_params.pth")["a"]
    train = torch.einsum("anr,rms,sut,tvb->nmuv", *given["factors"]).reshape(12, 8)
    torch.testing.assert_close(found.dense(), train.T + given["weight"] * given["mask"])


def test_what_is_written_is_the_published_layout(tmp_path: Path) -> None:
    write_tm_params(tmp_path / "tm_params.pth", {"a": layer(48, 24, True)})
    content = torch.load(tmp_path / "tm_params.pth", weights_only=True)["a"]
    assert (content["in_features"], content["out_features"]) == (24, 48)
    assert content["dim_list"] == [core.shape[1] for core in content["factors"]]
    assert content["rank_list"] == [1, *(core.shape[2] for core in content["factors"])]
    assert content["weight"].shape == content["mask"].shape == (48, 24)
    assert set(content) >= {"factors", "weight", "mask", "bias", "in_features", "out_features"}


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"mask": None}, "no mask"),
        ({"weight": torch.zeros(12, 8)}, "residual or mask"),
        ({"bias": torch.zeros(12)}, "bias"),
        ({"in_features": 6, "weight": torch.zeros(8, 6), "mask": torch.zeros(8, 6)}, "multiply up"),
        ({"factors": entry()["factors"][::-1]}, "no tensor train"),
        ({"factors": [core[0] for core in entry()["factors"]]}, "no tensor train"),
        ({"factors": []}, "no tensor train"),
        ({"factors": None}, "factors is None"),
        ({"factors": [1, 2]}, "factors is [1, 2]"),
        ({"weight": [1.0]}, "weight is [1.0]"),
        ({"mask": [1]}, "mask is [1]"),
        ({"bias": "x"}, "bias is 'x'"),
        ({"in_features": "x"}, "in_features is 'x'"),
    ],
)
def test_layers_that_disagree_with_themselves(change: dict[str, Any], fact: str, tmp_path: Path) -> None:
    changed = {**entry(), **change}
    torch.save(
        {"a.b": {key: value for key, value in changed.items() if key != "mask" or value is not None}}, tmp_path / "f"
    )
    with pytest.raises(CheckpointError, match=re.escape(fact)) as refusal:
        read_tm_params(tmp_path / "f")
    assert "a.b" in refusal.value.fact


class Hostile:
    """Unpickled, it would run a command."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.made)],)


def test_nothing_in_the_file_is_run(tmp_path: Path) -> None:
    torch.save({"a": Hostile(tmp_path / "made")}, tmp_path / "f")
    with pytest.raises(CheckpointError, match="torch refuses"):
        read_tm_params(tmp_path / "f")
    assert not (tmp_path / "made").exists()


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="torch refuses"):
        read_tm_params(tmp_path / "f")
    torch.save({"a": torch.zeros(2)}, tmp_path / "f")
    with pytest.raises(CheckpointError, match="something else"):
        read_tm_params(tmp_path / "f")
