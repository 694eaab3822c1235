"""A tiny random model and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.checkpoint import Checkpoint, open_checkpoint
from tests.checkpoint.conftest import TinyGguf, make_weights, write_gguf
from tests.parity.tiny_models import write_checkpoint
from tests.rewrite.tiny_graphs import one_thread


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """tiny(name): a model of two layers of `tests.parity.tiny_models`."""
    made: dict[str, Checkpoint] = {}

    def make(name: str) -> Checkpoint:
        if name not in made:
            folder = tmp_path_factory.mktemp("tiny") / name
            made[name] = open_checkpoint(write_checkpoint(folder, name, num_hidden_layers=2))
        return made[name]

    return make


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """tiny_gguf(kind): a Llama whose matrices are all of one GGML type."""
    made: dict[str, Checkpoint] = {}

    def make(kind: str) -> Checkpoint:
        if kind not in made:
            weights = make_weights("llama")
            types = {name: kind for name, value in weights.items() if value.ndim == 2}
            path: Path = tmp_path_factory.mktemp("gguf") / f"{kind}.gguf"
            made[kind] = open_checkpoint(write_gguf(path, TinyGguf(weights=weights, types=types)))
        return made[kind]

    return make
