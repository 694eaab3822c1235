"""Tiny models in each form, made once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rewrite.tiny_graphs import Forms, one_thread


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    return Forms(tmp_path_factory.mktemp("forms"))
