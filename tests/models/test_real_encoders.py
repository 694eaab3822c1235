"""Published encoders on their real weights, against transformers with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.pooling_files import pooling_of
from edgekit.layers.pooling import SentenceEncoder
from edgekit.models import registry
from edgekit.runtime.encoder_session import padded
from edgekit.runtime.encoder_text import EncoderTokenizer

pytestmark = pytest.mark.model

#: float32 against float32, for hidden states up to about 10 and embeddings of length 1.
HIDDEN_TOLERANCE, TOLERANCE = 2e-5, 1e-6

TEXTS = [
    "A cat sits on the window sill.",
    "A kitten is sitting by the window.",
    "The central bank raised interest rates again.",
    "Zürich, naïve café, 你好 " + "and so on " * 60,
]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("minilm", "BertModel", 256)),
        pytest.param(("mpnet", "MPNetModel", 384), marks=pytest.mark.slow),  # 405 MB of packages
    ],
    ids=["minilm", "mpnet"],
)
def models(request: pytest.FixtureRequest) -> tuple[Any, Any, Any, Any]:
    """Ours, theirs, and a padded batch of TEXTS."""
    name, cls, most = request.param
    checkpoint = open_checkpoint(name)
    pooling = pooling_of(checkpoint.path)
    assert (pooling.mode, pooling.normalize, pooling.max_tokens) == ("mean", True, most)
    ours = SentenceEncoder(registry.encoder_from_checkpoint(checkpoint), pooling.mode, pooling.normalize)
    theirs = getattr(transformers, cls).from_pretrained(checkpoint.path, attn_implementation="eager").eval()
    tokenizer = EncoderTokenizer(checkpoint.tokenizer_files()["tokenizer.json"].decode(), most)
    tokens = tokenizer.encode(TEXTS).tokens
    published = transformers.AutoTokenizer.from_pretrained(checkpoint.path)
    assert tokens == [published(text, truncation=True, max_length=most)["input_ids"] for text in TEXTS]
    ids, mask = (torch.from_numpy(array) for array in padded(tokens, int(checkpoint.config["pad_token_id"])))
    return ours, theirs, ids, mask


def test_hidden_states_and_embeddings_equal_transformers(models: tuple[Any, Any, Any, Any]) -> None:
    ours, theirs, ids, mask = models
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        embedding, hidden = ours(ids, mask)
    for mine, reference in zip(hidden, expected, strict=True):
        torch.testing.assert_close(mine[mask != 0], reference[mask != 0], rtol=0, atol=HIDDEN_TOLERANCE)
    # The published recipe: the mean of the tokens that are no padding, scaled to length 1.
    real = mask[..., None].float()
    mean = (expected[-1] * real).sum(1) / real.sum(1)
    torch.testing.assert_close(embedding, mean / mean.norm(dim=1, keepdim=True), rtol=0, atol=TOLERANCE)


def test_texts_that_mean_the_same_are_near(models: tuple[Any, Any, Any, Any]) -> None:
    """Errors of reading that both models would share leave no sense in the embeddings."""
    ours, _, ids, mask = models
    with torch.no_grad():
        embedding = ours(ids, mask)[0]
    similar = embedding @ embedding.T
    assert similar[0, 1] > 0.6
    assert similar[0, 2] < 0.2
