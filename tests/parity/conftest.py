"""Bundles of tiny random models, made once per session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from edgekit.bundle import Bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from tests.parity.tiny_models import export, write_checkpoint


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Matrices this small lose more to waiting threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    made: dict[str, Checkpoint] = {}

    def make(name: str) -> Checkpoint:
        if name not in made:
            made[name] = open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("checkpoint") / name, name))
        return made[name]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[[str], Checkpoint]
) -> Callable[..., Bundle]:
    """tiny_bundle(name, form, dtype): exported once; copy it before changing its files."""
    made: dict[tuple[str, str, str], Bundle] = {}

    def make(name: str, form: str = "ort", dtype: str = "fp32") -> Bundle:
        key = (name, form, dtype)
        if key not in made:
            made[key] = export(tiny_checkpoint(name), tmp_path_factory.mktemp("bundle") / "-".join(key), form, dtype)
        return made[key]

    return make
