"""The trained T6 of exports/t6-small: it loads, knows its language, and its cached forms agree."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.checkpoint.t6_training import T6TrainingCheckpoint, write_t6_training_directory
from edgekit.layers.decoder import Decoder
from edgekit.models import registry
from edgekit.train.dense_forward import dense_logits, dense_loss
from tests.models.t6_tools import run

DIRECTORY = Path(__file__).parents[2] / "exports/t6-small"

#: From the address of 1929, which is among the texts kept back from training (public domain).
HELD_OUT = (
    "Our adherence to the International Court is, as now constituted, not the slightest step toward entry into the "
    "League of Nations. As I have before indicated, I shall direct that our signature be affixed to the protocol of "
    "adherence and shall submit it for the approval of the Senate with a special message at some time when it is "
    "convenient to deal with it. In the hope of reducing friction in the world, and with the desire that we may reduce "
    "the great economic burdens"
)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(DIRECTORY)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> Decoder:
    return registry.model_from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.from_str(checkpoint.tokenizer_files()["tokenizer.json"].decode())


def tokens(tokenizer: Tokenizer, text: str) -> Tensor:
    return torch.tensor([[0, *tokenizer.encode(text).ids]])


def test_it_is_a_small_contextual_t6(checkpoint: Checkpoint, model: Decoder) -> None:
    assert sum(path.stat().st_size for path in checkpoint.file_paths()) <= 8e6
    assert {checkpoint.spec(name).dtype for name in checkpoint.names()} == {"float16"}
    config = checkpoint.config
    assert (config["model_type"], config["query_rank"], config["key_rank"], config["value_rank"]) == ("t6", 6, 2, 2)
    per_layer = 4 * (config["num_attention_heads"] + config["head_dim"])
    assert [sum(t.numbers for t in layer) for layer in model.cache_layout()] == [per_layer] * config[
        "num_hidden_layers"
    ]


def test_it_predicts_text_that_it_has_not_seen(model: Decoder, tokenizer: Tokenizer) -> None:
    ids = tokens(tokenizer, HELD_OUT)
    uniform = math.log(4096)
    loss = float(dense_loss(model, ids))
    assert loss < 0.65 * uniform
    # Order is part of what it knows: the same tokens shuffled cost more.
    order = torch.randperm(ids.shape[1] - 1, generator=torch.Generator().manual_seed(0)) + 1
    shuffled = torch.cat((ids[:, :1], ids[:, order]), 1)
    assert float(dense_loss(model, shuffled)) > loss + 1


def test_its_recorded_loss_is_far_below_the_uniform_one() -> None:
    history = json.loads((DIRECTORY / "history.json").read_text())
    assert history["result"]["finished"]
    assert history["held_out"][-1][1] == history["result"]["held_out_loss"] < 0.65 * math.log(4096)


def test_greedy_text_is_deterministic_and_independent_of_the_cache(model: Decoder, tokenizer: Tokenizer) -> None:
    prompt = tokens(tokenizer, "The Congress of the United States")
    cached: list[int] = []
    past, ids = None, prompt
    for _ in range(40):
        output = run(model, ids, past=past)
        past, ids = output.present, output.logits[:, -1:].argmax(-1)
        cached.append(int(ids))
    whole = prompt
    for _ in range(40):
        whole = torch.cat((whole, dense_logits(model, whole)[:, -1:].argmax(-1)), 1)
    assert whole[0, prompt.shape[1] :].tolist() == cached
    assert len(set(cached)) > 1


def test_prefill_and_decode_agree_in_float64(model: Decoder, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    exact = registry.model_from_checkpoint(checkpoint, torch.float64)
    ids = tokens(tokenizer, HELD_OUT)
    first = run(exact, ids[:, :31])
    rest = run(exact, ids[:, 31:], past=first.present)
    expected = dense_logits(exact, ids)
    torch.testing.assert_close(torch.cat((first.logits, rest.logits), 1), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(run(model, ids).logits.double(), expected, rtol=0, atol=1e-3)


def test_it_goes_through_the_training_layout_bit_for_bit(tmp_path: Path, checkpoint: Checkpoint) -> None:
    arrays = {name: checkpoint.array(name) for name in checkpoint.names()}
    write_t6_training_directory(tmp_path / "theirs", checkpoint.config, arrays)
    back = T6TrainingCheckpoint(tmp_path / "theirs")
    assert sorted(back.names()) == sorted(arrays)
    for name, array in arrays.items():
        assert np.array_equal(back.array(name).view(np.uint16), array.view(np.uint16)), name
