from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import open_checkpoint
from tests import gpu_tools
from tests.parity.tiny_models import export, write_checkpoint
from tests.runtime.subjects import KINDS, SUBJECTS, ExportedSubject, RealTrtSubject, Subject
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


#: On a real GPU: in each form that its TensorRT takes.
REAL = [pytest.param(("real", name), marks=pytest.mark.gpu, id=f"real-{name}") for name in ("llama", "t6")]
FAKE = [pytest.param(each, id="-".join(each)) for each in [*((e, k) for e in SUBJECTS for k in KINDS), *EXPORTED]]


@pytest.fixture(scope="session")
def built(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Bundles with an engine that was built for this machine's GPU, each once."""
    made: dict[str, Bundle] = {}

    def bundle(name: str) -> Bundle:
        if (reason := gpu_tools.no_tensorrt()) is not None:
            pytest.skip(reason)
        if name not in made:
            request = gpu_tools.build_request(max_batch_size=3, max_input_len=256)
            copy = tmp_path_factory.mktemp(f"built-{name}") / "bundle"
            shutil.copytree(exported(name, gpu_tools.form()).path, copy)
            engine_from_bundle(prepared_build(read_bundle(copy), request))
            made[name] = read_bundle(copy)
        return made[name]

    return bundle


@pytest.fixture(params=[*FAKE, *REAL])
def subject(request: pytest.FixtureRequest, tiny_graphs: dict[str, Path], exported: Any, built: Any) -> Subject:
    """An engine with a kind of cache, over the tiny decoder or an exported model."""
    first, second = request.param
    if first == "real":
        return RealTrtSubject(built(second))
    if first in SUBJECTS:
        return SUBJECTS[first](tiny_graphs, second)
    return ExportedSubject(exported(first, second))


@pytest.fixture
def session(subject: Subject) -> Iterator[Any]:
    """A session of the subject."""
    opened = subject.open()
    yield opened
    opened.close()
