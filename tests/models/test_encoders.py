"""Every encoder against the published implementation, with tiny random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgekit.contract import KIND_DECODER, KIND_ENCODER
from edgekit.errors import ModelError
from edgekit.layers.pooling import SentenceEncoder, pooled
from edgekit.models import registry
from tests.models.encoders import CASES, batch, published_encoder

#: float32 against float32, for hidden states with a standard deviation of about 1.
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=CASES)
def encoder_case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def checkpoint_of(model: Any) -> Any:
    from tests.models.conftest import MemoryCheckpoint

    return MemoryCheckpoint(model.config.to_dict(), {name: t.numpy() for name, t in model.state_dict().items()})


@pytest.fixture(scope="module")
def pair(encoder_case: str) -> tuple[Any, Any]:
    """The published model and ours with its weights."""
    theirs = published_encoder(encoder_case)
    return theirs, registry.encoder_from_checkpoint(checkpoint_of(theirs))


def test_hidden_states_of_a_padded_batch(encoder_case: str, pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    ids, mask = batch(encoder_case)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    found = ours(ids, mask).hidden
    assert len(found) == len(expected)
    for mine, reference in zip(found, expected, strict=True):
        assert reference.std() > 0.3
        torch.testing.assert_close(mine[mask != 0], reference[mask != 0], rtol=0, atol=TOLERANCE)


def test_padding_changes_nothing(encoder_case: str, pair: tuple[Any, Any]) -> None:
    ours = pair[1]
    ids, mask = batch(encoder_case)
    together = ours(ids, mask).tokens
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = ours(ids[row : row + 1, :length], mask[row : row + 1, :length]).tokens
        torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=TOLERANCE)


def test_token_types() -> None:
    theirs = published_encoder("bert")
    ours = registry.encoder_from_checkpoint(checkpoint_of(theirs))
    ids, mask = batch("bert", (12,))
    types = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, token_type_ids=types).last_hidden_state
    torch.testing.assert_close(ours(ids, mask, types).tokens, expected, rtol=0, atol=TOLERANCE)
    assert (ours(ids, mask).tokens - expected).abs().max() > 0.01


def test_long_distances_of_mpnet() -> None:
    """Beyond 128 tokens apart all share a bucket, and up to there some borders fall on whole logarithms."""
    theirs = published_encoder("mpnet")
    ours = registry.encoder_from_checkpoint(checkpoint_of(theirs))
    ids, mask = batch("mpnet", (300, 131))
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours(ids, mask).tokens[mask != 0], expected[mask != 0], rtol=0, atol=2 * TOLERANCE)


def test_distance_buckets_are_the_published_ones() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    from edgekit.models.mpnet import distance_bucket

    distances = torch.arange(-600, 601)
    expected = MPNetEncoder.relative_position_bucket(distances, num_buckets=32).tolist()
    assert [distance_bucket(each) for each in distances.tolist()] == expected
    assert len(set(expected)) == 31  # bucket 16 would be "after, at distance 0"


def test_half_precision(encoder_case: str, pair: tuple[Any, Any]) -> None:
    ids, mask = batch(encoder_case)
    low = registry.encoder_from_checkpoint(checkpoint_of(pair[0]), torch.bfloat16)(ids, mask).tokens
    assert low.dtype == torch.bfloat16
    exact = pair[1](ids, mask).tokens
    assert torch.nn.functional.cosine_similarity(low[mask != 0].float(), exact[mask != 0]).min() > 0.99


def test_pooling_by_its_formulas() -> None:
    tokens, mask = (
        torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)),
        torch.tensor([[1, 1, 0, 0], [1] * 4]),
    )
    mean = np.stack([tokens[0, :2].numpy().mean(0), tokens[1].numpy().mean(0)])
    np.testing.assert_allclose(pooled(tokens, mask, "mean", False), mean, atol=1e-6)
    np.testing.assert_allclose(
        pooled(tokens, mask, "mean", True), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6
    )
    np.testing.assert_array_equal(pooled(tokens, mask, "cls", False), tokens[:, 0])
    with pytest.raises(ModelError, match="mean, cls"):
        pooled(tokens, mask, "max", False)


def test_a_long_text_in_float16_keeps_its_mean() -> None:
    tokens = torch.full((1, 512, 2), 300.0, dtype=torch.float16)  # their sum is above the largest float16
    found = pooled(tokens, torch.ones(1, 512, dtype=torch.int64), "mean", False)
    assert found.dtype == torch.float32
    assert found.tolist() == [[300.0, 300.0]]


def test_a_sentence_encoder_is_its_parts(pair: tuple[Any, Any], encoder_case: str) -> None:
    ids, mask = batch(encoder_case)
    embedding, hidden = SentenceEncoder(pair[1], "cls", True)(ids, mask)
    assert torch.equal(embedding, pooled(hidden[-1], mask, "cls", True))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_encoders_are_found_by_their_files() -> None:
    assert registry.architectures(KIND_ENCODER) == ["bert", "mpnet"]
    assert registry.kind_of({"model_type": "bert"}) == KIND_ENCODER
    assert registry.kind_of({"model_type": "llama"}) == registry.kind_of({"model_type": "gpt2"}) == KIND_DECODER


def test_the_wrong_kind_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match="another kind") as error:
        registry.model_from_config({"model_type": "bert"})
    assert "edgekit export" in error.value.next_step
    with pytest.raises(ModelError, match="bert, mpnet"):
        registry.encoder_on_meta({"model_type": "llama"})


@pytest.mark.parametrize("name", ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"])
def test_what_embeddings_do_not_depend_on_is_let_through(name: str) -> None:
    checkpoint = checkpoint_of(published_encoder("bert"))
    checkpoint.arrays[name] = np.zeros(3, np.float32)
    registry.encoder_from_checkpoint(checkpoint)
    assert name not in checkpoint.reads
    checkpoint.arrays[f"{name}.more"] = np.zeros(3, np.float32)
    with pytest.raises(ModelError, match="Unexpected 1"):
        registry.encoder_from_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"num_attention_heads": 5}, "not whole"),
        ({"hidden_act": "relu"}, "relu"),
    ],
)
def test_unsupported_configurations_are_refused(change: dict[str, Any], fact: str) -> None:
    config = published_encoder("bert").config.to_dict() | change
    with pytest.raises(ModelError, match=fact):
        registry.encoder_on_meta(config)


def test_other_buckets_of_mpnet_are_refused() -> None:
    config = published_encoder("mpnet").config.to_dict() | {"relative_attention_num_buckets": 64}
    with pytest.raises(ModelError, match="64"):
        registry.encoder_on_meta(config)


def test_a_text_longer_than_the_positions_is_refused() -> None:
    model = registry.encoder_from_checkpoint(checkpoint_of(published_encoder("mpnet")))
    assert model.max_positions == 398  # numbers 0 and 1 of 400 are no token's
    ids, mask = batch("mpnet", (399,))
    with pytest.raises(ModelError, match="at most 398"):
        model(ids, mask)
    assert model(ids[:, :398], mask[:, :398]).tokens.isfinite().all()
