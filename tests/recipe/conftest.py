"""Each test has a cache and a workshop of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe.workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return Workshop(tmp_path)
