"""Windows of hidden states that are computed when wanted are those of a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.draft.batches import CachedRows, Frozen
from edgekit.draft.features import cached_features
from edgekit.draft.live import LiveRows
from edgekit.heal.full_attention import head_of
from edgekit.models.registry import model_from_checkpoint
from tests.parity.tiny_models import write_checkpoint


def test_windows_are_those_of_a_cache(tmp_path: Path) -> None:
    model = model_from_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "m", "llama")))
    tokens = np.random.default_rng(0).integers(0, 200, (3, 90))
    vocabulary = torch.arange(0, 200, 3)
    frozen = Frozen(torch.empty(0), head_of(model).detach()[vocabulary], model.model.norm, vocabulary)
    cache = cached_features(tmp_path / "cache", model, tokens, (1, 2))
    assert cache is not None
    cached, live = CachedRows(cache), LiveRows(model, tokens, (1, 2), 17, 4)
    assert live.size == 90 - 17 - 4 - 2
    places = np.array([[2, 17], [0, 17]])
    cached.size = live.size  # type: ignore[misc]
    pairs = (source.windows(frozen, places, 4, 0.8, 20) for source in (live, cached))
    for mine, theirs in zip(*pairs, strict=True):
        # A cache holds features in half precision.
        torch.testing.assert_close(mine.features, theirs.features, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(mine.targets.model, theirs.targets.model, rtol=2e-2, atol=1e-4)
        assert (mine.before, mine.missing) == (theirs.before, theirs.missing) == (20, 3)
        for name in ("known", "greedy", "text"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name).long()), name
        assert torch.equal(mine.targets.tokens, theirs.targets.tokens)
        assert torch.equal(mine.targets.weight, theirs.targets.weight)
