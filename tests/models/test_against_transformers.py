"""Every architecture against the published implementation, with tiny random weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from edgekit.models import registry

#: float32 against float32, for logits with a standard deviation of about 2.
TOLERANCE = 5e-5


def tokens(batch: int, length: int, seed: int = 5) -> torch.Tensor:
    return torch.randint(1, 101, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pair(case: str, tools: Any) -> tuple[Any, Any]:
    """The published model and ours with its weights."""
    theirs = tools.published(case)
    return theirs, registry.model_from_checkpoint(tools.checkpoint_of(theirs))


def test_logits_and_hidden_states(pair: tuple[Any, Any], tools: Any) -> None:
    theirs, ours = pair
    ids = tokens(2, 23)
    with torch.no_grad():
        expected = theirs(ids, output_hidden_states=True)
    output = tools.run(ours, ids)
    assert expected.logits.std() > 0.5
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=TOLERANCE)
    # The last published hidden state has passed the final norm already.
    assert len(output.hidden) == len(expected.hidden_states)
    for mine, reference in zip(output.hidden[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=TOLERANCE)
    final = ours.model.norm(output.hidden[-1])
    torch.testing.assert_close(final, expected.hidden_states[-1], rtol=1e-5, atol=TOLERANCE)


def test_left_padded_batch(pair: tuple[Any, Any], tools: Any) -> None:
    theirs, ours = pair
    ids, mask = tokens(2, 19), torch.ones(2, 19, dtype=torch.int64)
    mask[1, :8] = 0
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    logits = tools.run(ours, ids, mask).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[mask != 0], expected[mask != 0], rtol=0, atol=TOLERANCE)
    alone = tools.run(ours, ids[1:, 8:]).logits
    torch.testing.assert_close(logits[1, 8:], alone[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("pieces", [(1,) * 17, (9, 1, 7)], ids=["one-by-one", "chunks"])
def test_cached_pieces_equal_the_whole(pair: tuple[Any, Any], pieces: tuple[int, ...], tools: Any) -> None:
    ours = copy.deepcopy(pair[1]).double()
    ids, mask = tokens(2, 17), torch.ones(2, 17, dtype=torch.int64)
    mask[0, :3] = 0
    whole = tools.run(ours, ids, mask)
    past, logits, start = None, [], 0
    for length in pieces:
        end = start + length
        output = tools.run(ours, ids[:, start:end], mask[:, :end], past)
        past = output.present
        logits.append(output.logits)
        start = end
    torch.testing.assert_close(torch.cat(logits, 1), whole.logits, rtol=0, atol=1e-10)
    for mine, reference in zip(past, whole.present, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10)


def test_cache_equals_the_published_cache(pair: tuple[Any, Any], tools: Any) -> None:
    theirs, ours = pair
    ids = tokens(1, 4)  # Shorter than or equal to the windows, beyond which the published cache drops tokens.
    with torch.no_grad():
        cache = theirs(ids, use_cache=True).past_key_values
    for layer, (key, value) in enumerate(tools.run(ours, ids).present):
        kept = cache.layers[layer].keys.shape[2]
        assert kept >= 2
        torch.testing.assert_close(key[:, :, -kept:], cache.layers[layer].keys, rtol=1e-5, atol=TOLERANCE)
        torch.testing.assert_close(value[:, :, -kept:], cache.layers[layer].values, rtol=1e-5, atol=TOLERANCE)


def test_greedy_tokens_are_equal(pair: tuple[Any, Any], tools: Any) -> None:
    theirs, ours = pair
    ids = tokens(1, 6)
    expected = theirs.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert tools.greedy(ours, ids, 24) == expected[0, 6:].tolist()


def test_logits_to_keep(pair: tuple[Any, Any], tools: Any) -> None:
    ids = tokens(2, 7)
    whole = tools.run(pair[1], ids).logits
    for keep in (1, 3, 7, 50):
        logits = tools.run(pair[1], ids, keep=keep).logits
        assert logits.shape == (2, min(keep, 7), 101)
        torch.testing.assert_close(logits, whole[:, -keep:], rtol=0, atol=1e-5)


def test_parameter_names_are_the_published_ones(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    expected = {name: parameter.shape for name, parameter in theirs.named_parameters()}
    assert {name: parameter.shape for name, parameter in ours.named_parameters()} == expected
    assert set(ours.state_dict()) == set(expected)
