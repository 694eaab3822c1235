from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import contract
from edgekit.runtime.ort_session import OrtSession
from tests.runtime.tiny_decoder import MAX_POSITION, write_tiny_decoder


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tiny decoder with either kind of cache."""
    folder = tmp_path_factory.mktemp("tiny")
    return {
        kind: write_tiny_decoder(folder / f"{kind}.onnx", kind)
        for kind in (contract.CACHE_SHARED, contract.CACHE_CONCAT)
    }


@pytest.fixture(params=[contract.CACHE_SHARED, contract.CACHE_CONCAT])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(tiny_graphs: dict[str, Path], kind: str) -> OrtSession:
    """A session over the tiny decoder, once with each kind of cache."""
    return OrtSession(tiny_graphs[kind], cache_kind=kind, capacity_limit=MAX_POSITION, threads=1)
