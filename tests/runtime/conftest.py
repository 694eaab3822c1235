from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.subjects import KINDS, SUBJECTS, Subject
from tests.runtime.tiny_decoder import write_tiny_decoder


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tiny decoder with either kind of cache."""
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: write_tiny_decoder(folder / f"{kind}.onnx", kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(engine, kind) for engine in SUBJECTS for kind in KINDS], ids="-".join)
def subject(request: pytest.FixtureRequest, tiny_graphs: dict[str, Path]) -> Subject:
    """An engine with a kind of cache, over the tiny decoder."""
    engine, kind = request.param
    return SUBJECTS[engine](tiny_graphs, kind)


@pytest.fixture
def session(subject: Subject) -> Iterator[Any]:
    """A session of the subject."""
    opened = subject.open()
    yield opened
    opened.close()
