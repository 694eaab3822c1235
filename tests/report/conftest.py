"""A tiny bundle, alone and with everything measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.bundle import Bundle, read_bundle, write_sidecar
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.report import documents


@pytest.fixture
def bare(tmp_path: Path) -> Bundle:
    """Nothing was measured."""
    return read_bundle(write_tiny_bundle(tmp_path / "bundle"))


@pytest.fixture
def measured(bare: Bundle) -> Bundle:
    """Everything was."""
    write_sidecar(bare, "parity", documents.parity())
    write_sidecar(bare, "eval", documents.perplexity())
    write_sidecar(bare, "bench", documents.bench())
    return bare
