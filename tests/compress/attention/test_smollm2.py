"""Exact conversion of the real SmolLM2: the same model with another attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.compress.attention.convert import ConvertOptions, convert
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_checkpoint
from edgekit.progress import SilentProgress

pytestmark = pytest.mark.model

PROMPT = "The lighthouse keeper climbed the stairs every evening because"


@pytest.fixture(scope="module")
def pair(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, Decoder, torch.Tensor]:
    """The original, the converted model, and a prompt's tokens."""
    from tokenizers import Tokenizer

    source = open_checkpoint(smollm2_path)
    out = tmp_path_factory.mktemp("exact") / "smollm2"
    convert(source, out, ConvertOptions(structure="exact"), progress=SilentProgress())
    converted = open_checkpoint(out)
    tokenizer = Tokenizer.from_str(converted.tokenizer_files()["tokenizer.json"].decode())
    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    return model_from_checkpoint(source), model_from_checkpoint(converted), ids


@torch.no_grad()
def greedy(model: Decoder, ids: torch.Tensor, count: int) -> tuple[list[int], torch.Tensor]:
    """Tokens, and the logits of the prompt."""
    output = model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([0]))
    prompt, found, length = output.logits, [], ids.shape[1]
    for _ in range(count):
        found.append(int(output.logits[0, -1].argmax()))
        length += 1
        mask = torch.ones(1, length, dtype=torch.int64)
        output = model(torch.tensor([[found[-1]]]), mask, output.present, torch.tensor([1]))
    return found, prompt


def test_logits_are_those_of_the_original(pair: tuple[Decoder, Decoder, torch.Tensor]) -> None:
    source, converted, ids = pair
    expected, found = greedy(source, ids, 8), greedy(converted, ids, 8)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-4)
    assert found[0] == expected[0]


@pytest.mark.slow
def test_200_greedy_tokens_are_those_of_the_original(pair: tuple[Decoder, Decoder, torch.Tensor]) -> None:
    source, converted, ids = pair
    assert greedy(converted, ids, 200)[0] == greedy(source, ids, 200)[0]
