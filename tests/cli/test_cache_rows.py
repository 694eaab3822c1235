"""Bytes per token of a configuration, for every architecture, against the cache of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.cache_rows import caches_factors, checkpoint_caches
from edgekit.models.registry import architectures, model_on_meta
from tests.parity.tiny_models import CONFIGS, write_checkpoint

#: A tiny model of each architecture, from one of the same configuration where it has none of its own.
TINY: dict[str, tuple[str, dict[str, Any]]] = {config["model_type"]: (name, {}) for name, config in CONFIGS.items()} | {
    "mistral": ("llama", {"model_type": "mistral"})
}


@pytest.mark.parametrize("model_type", architectures())
def test_the_size_is_that_of_the_models_cache(model_type: str, tmp_path: Path) -> None:
    """Also tells when a new model's cache is not plain keys and values and its file does not say so."""
    base, changes = TINY[model_type]
    config = json.loads((write_checkpoint(tmp_path / "checkpoint", base, **changes) / "config.json").read_text())
    layout = model_on_meta(config, 1).cache_layout()
    numbers = sum(tensor.numbers for cache in layout for tensor in cache)
    shown = checkpoint_caches(config)
    assert shown["float16"] is not None
    assert shown["float32"] is not None
    assert (shown["float16"]["own"], shown["float32"]["own"]) == (2 * numbers, 4 * numbers)
    plain = all({tensor.suffix for tensor in cache} == {"key", "value"} for cache in layout)
    assert caches_factors(model_type) is not plain


@pytest.mark.parametrize("model_type", ["nothing", "", "../models/t6", "_weights", "*", "None"])
def test_a_name_of_no_model_is_not_looked_for_elsewhere(model_type: str) -> None:
    assert not caches_factors(model_type)
