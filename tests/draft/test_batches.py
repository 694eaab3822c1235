"""Windows to train on and the measure of heads, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.draft.batches import WINDOW, CachedRows, Frozen, Window, places
from edgekit.draft.features import FeatureCache
from edgekit.draft.measure import quality
from edgekit.draft.vocabulary import frequent_tokens
from tests.draft.small import WIDTH, cache, frozen, head, student


def window_at(found: FeatureCache, model: Frozen, row: int, start: int, decay: float, before: int = 0) -> Window:
    [window] = CachedRows(found).windows(model, np.array([[row, start]]), 3, decay, before)
    return window


def test_a_window_holds_what_follows_each_position() -> None:
    model, tokens, start = frozen(), 3, 11
    found = cache(model)
    window = window_at(found, model, 2, start, 0.5)
    vocabulary = model.vocabulary.tolist()
    for place in range(WINDOW):
        at = start + place
        assert window.known[place] == found.tokens[2, at + 1]
        weight = 1.0
        for s in range(tokens):
            token = int(found.tokens[2, at + 2 + s])
            known = token in vocabulary
            assert window.targets.tokens[place, s] == (vocabulary.index(token) if known else -1)
            assert window.text[place, s] == token
            assert window.greedy[place, s] == found.greedy[2, at + 1 + s]
            assert window.targets.weight[place, s].item() == pytest.approx(weight)
            weight *= 0.5 if known else 0.0
            final = model.norm(torch.from_numpy(found.features[2, at + 1 + s, WIDTH:]).float())
            p = (head() @ final).softmax(-1)[model.vocabulary]
            torch.testing.assert_close(window.targets.model[place, s], p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [2, 5, 30])
def test_a_window_holds_what_lies_before_it_as_far_as_there_is_any(start: int) -> None:
    model = frozen()
    found = cache(model)
    alone, window = window_at(found, model, 1, start, 0.5), window_at(found, model, 1, start, 0.5, before=5)
    assert (window.before, window.missing) == (5, max(0, 5 - start))
    assert torch.equal(window.features[5:], alone.features)
    assert torch.equal(window.known[5:], alone.known)
    for back in range(1, min(start, 5) + 1):
        assert window.features[5 - back].tolist() == found.features[1, start - back].tolist()
        assert window.known[5 - back] == found.tokens[1, start - back + 1]
    for mine, theirs in zip(window.targets, alone.targets, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.equal(window.text, alone.text)
    assert torch.equal(window.greedy, alone.greedy)


def test_windows_cover_rows_without_overlap_and_end_before_the_row_does() -> None:
    found = places(np.array([3, 5]), 300, 4, 20, WINDOW)
    assert found.tolist() == [[row, start] for row in (3, 5) for start in (20, 84, 148, 212)]
    assert found[:, 1].max() + WINDOW + 4 + 1 <= 299


def test_quality_is_what_a_loop_finds() -> None:
    model, drafting = frozen(), student(rank=3)
    windows = [window_at(cache(model), model, row, 8, 1.0, 4) for row in (0, 4)]
    found = quality(drafting, model, windows)
    tried, accepted = np.zeros(3), np.zeros(3)
    common, weight = np.zeros(3), np.zeros(3)
    with torch.no_grad():
        for window in windows:
            for i in range(WINDOW):
                seen = slice(i, i + 5)  # the position and the four before it
                log_w, v = drafting(window.features[None, seen], model.states[window.known[seen]][None], 4)
                pi = log_w[0].exp()
                p = (v[0] @ model.unembedding.T).softmax(-1)
                alive = True
                for s in range(3):
                    q = (pi[:, None] * p[s]).sum(0)
                    if window.targets.weight[i, s] > 0:
                        weight[s] += 1
                        common[s] += torch.minimum(q, window.targets.model[i, s]).sum().item()
                    if alive:
                        tried[s] += 1
                        draft = int(model.vocabulary[q.argmax()])
                        accepted[s] += draft == window.greedy[i, s]
                        alive = draft == window.greedy[i, s] == window.text[i, s]
                    place = int(window.targets.tokens[i, s])
                    if place >= 0:
                        pi = pi * p[s, :, place]
                        pi = pi / pi.sum()
    assert found.greedy == pytest.approx((accepted / np.maximum(tried, 1)).tolist())
    assert found.sampled == pytest.approx((common / weight).tolist(), rel=1e-4)
    assert sum(found.used) == pytest.approx(1.0, abs=1e-5)
    assert accepted[0] > 0  # else the comparison says nothing
    a, b, c = found.greedy
    assert found.tokens_per_step == pytest.approx(1 + a + a * b + a * b * c)


def test_the_vocabulary_is_the_most_frequent_tokens_and_what_must_be_in_it() -> None:
    counts = np.array([5, 0, 9, 1, 7, 0])
    vocabulary, share = frequent_tokens(counts, 3, always=(1,))
    assert vocabulary.tolist() == [1, 2, 4]
    assert share == pytest.approx(16 / 22)
    assert frequent_tokens(counts, 99)[0].tolist() == [0, 1, 2, 3, 4, 5]
