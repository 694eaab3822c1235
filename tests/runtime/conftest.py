from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle
from edgekit.checkpoint import open_checkpoint
from tests.parity.tiny_models import export, write_checkpoint
from tests.runtime.subjects import KINDS, SUBJECTS, ExportedSubject, Subject
from tests.runtime.tiny_decoder import write_tiny_decoder


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tiny decoder with either kind of cache."""
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: write_tiny_decoder(folder / f"{kind}.onnx", kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Bundle]:
    """Bundles of random models by name and form, each exported once."""
    made: dict[tuple[str, str], Bundle] = {}

    def bundle(name: str, form: str) -> Bundle:
        if (name, form) not in made:
            folder = tmp_path_factory.mktemp(name)
            checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", name, max_position_embeddings=1024))
            made[name, form] = export(checkpoint, folder / "bundle", form)
        return made[name, form]

    return bundle


#: In the forms that TensorRT gets: attention over keys and values in place and growing, over factors in place.
EXPORTED = [("llama", "tensorrt"), ("llama", "jetpack6"), ("t6", "tensorrt")]


@pytest.fixture(params=[*((e, k) for e in SUBJECTS for k in KINDS), *EXPORTED], ids="-".join)
def subject(request: pytest.FixtureRequest, tiny_graphs: dict[str, Path], exported: Any) -> Subject:
    """An engine with a kind of cache, over the tiny decoder or an exported model."""
    first, second = request.param
    if first in SUBJECTS:
        return SUBJECTS[first](tiny_graphs, second)
    return ExportedSubject(exported(first, second))


@pytest.fixture
def session(subject: Subject) -> Iterator[Any]:
    """A session of the subject."""
    opened = subject.open()
    yield opened
    opened.close()
