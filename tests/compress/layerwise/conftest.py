"""Tiny checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.tiny_models import write_checkpoint
from tests.tiny_encoder import write_encoder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of two layers."""
    return write_checkpoint(tmp_path_factory.mktemp("layerwise") / "llama", "llama", num_hidden_layers=2)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of two layers."""
    return write_encoder(tmp_path_factory.mktemp("layerwise") / "bert", "bert")
