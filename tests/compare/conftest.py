"""Bundles of one tiny random model, and a cache of their own for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.progress import SilentProgress
from tests.parity.tiny_models import export, write_checkpoint
from tests.tiny_encoder import write_encoder


@pytest.fixture(scope="session")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, three bundles of it, and a text."""
    folder = tmp_path_factory.mktemp("decoders")
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", "llama"))
    for dtype in ("fp32", "int8", "int4"):
        export(checkpoint, folder / dtype, dtype=dtype)
    (folder / "text.txt").write_text("hello world, naïve café 12345\n" * 20)
    return folder


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bundles of an encoder and its checkpoint."""
    folder = tmp_path_factory.mktemp("encoders")
    checkpoint = open_checkpoint(write_encoder(folder / "checkpoint"))
    for dtype in ("fp32", "int8"):
        bundle_from_checkpoint(checkpoint, folder / dtype, ExportOptions(dtype=dtype), progress=SilentProgress())
    return folder


@pytest.fixture
def copied(decoders: Path, tmp_path: Path) -> Path:
    """The bundle of 8 bits, to be damaged."""
    return Path(shutil.copytree(decoders / "int8", tmp_path / "copied"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
