"""Which engine of a bundle is opened, and why others are refused, over fakes of CUDA and TensorRT."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle, read_bundle, write_bundle
from edgekit.bundle.engine_entry import EngineEntry, PluginUse
from edgekit.errors import BundleError, EdgekitError, SessionError
from edgekit.files import sha256_of
from edgekit.runtime.session import session_from_bundle
from tests.conftest import paper_manifest
from tests.runtime.fake_cuda import FakeCudart
from tests.runtime.fake_tensorrt import FakeEngine, FakeTensorRT
from tests.runtime.subjects import FakeTrtSubject, ort_session
from tests.tools import lacking

LIBRARY = b"a plugin library"
ENTRY = EngineEntry(
    name="sm89-fp32",
    file="engines/sm89-fp32/model.engine",
    backend="tensorrt",
    backend_version="10.3.0.30",
    compute_capabilities=("89",),
    device="rtx-4090",
    cuda="12.6",
    dtype="fp32",
    max_batch_size=3,
    max_input_len=256,
    max_kv_cache_capacity=2048,
    profiles=(),
    plugins=(),
    options=(),
    graph_sha256="0" * 64,
    cache_key="0" * 64,
    engine_bytes=1,
    weights_bytes=None,
    activation_bytes=None,
    build_seconds=1.0,
    build_peak_memory_bytes=None,
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    fake = FakeCudart(compute_capability=(8, 9))
    monkeypatch.setattr("edgekit.runtime.trt_choice.load_cuda", fake.cuda)
    return fake


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)  # type: ignore[arg-type]
    return fake


Make = Callable[..., Bundle]


@pytest.fixture
def make(tmp_path: Path, tiny_graphs: dict[str, Path], kind: str, gpu: FakeCudart, trt: FakeTensorRT) -> Make:
    """A bundle of the tiny decoder with these engines, whose files hold their names."""

    def write(*entries: EngineEntry) -> Bundle:
        with write_bundle(tmp_path / "bundle") as draft:
            draft.manifest.update(paper_manifest())
            draft.manifest["cache"] |= {"kind": kind, "capacity_limit": 2048}
            draft.manifest["graph"] |= {"file": "model.onnx", "data": []}
            (draft.path / "model.onnx").write_bytes(tiny_graphs[kind].read_bytes())
            for entry in entries:
                file = draft.path / entry.file
                file.parent.mkdir(parents=True)
                file.write_text(entry.name)
                for plugin in entry.plugins:
                    (draft.path / plugin.library).write_bytes(LIBRARY)
                axes = FakeTrtSubject(tiny_graphs, kind).axes()
                trt.engines[entry.name.encode()] = lambda axes=axes: FakeEngine(gpu, tiny_graphs[kind], axes)
            draft.manifest["engines"] = [entry.to_dict() for entry in entries]
        return read_bundle(tmp_path / "bundle")

    return write


def with_plugin(make_sha: str) -> EngineEntry:
    library = f"engines/{ENTRY.name}/libedgekit_tensorrt.so"
    return replace(ENTRY, plugins=(PluginUse("TPAAttention", "1", "edgekit", 2, library, make_sha),))


def refused(bundle: Bundle, **arguments: Any) -> EdgekitError:
    with pytest.raises(EdgekitError) as caught:
        session_from_bundle(bundle, backend="tensorrt", **arguments)
    return caught.value


def test_the_engine_of_a_bundle_decodes(make: Make, tiny_graphs: dict[str, Path], kind: str, gpu: FakeCudart) -> None:
    session = session_from_bundle(make(ENTRY), backend="tensorrt", capacity=100)
    assert session.name == "tensorrt"
    assert session.description == "tensorrt 10.3.0.30, CUDA 12.6, engine sm89-fp32"
    assert session.capacity == 100
    tokens = np.arange(30)[None]
    want = ort_session(tiny_graphs, kind).forward(tokens, keep=0)
    np.testing.assert_allclose(session.forward(tokens, keep=0), want, atol=2e-4)
    session.close()
    assert not gpu.live


def test_a_bundle_without_an_engine_names_the_command(make: Make) -> None:
    error = refused(make())
    assert isinstance(error, BundleError)
    assert "edgekit build" in error.next_step


def test_the_newest_engine_that_fits_is_taken(make: Make, trt: FakeTensorRT) -> None:
    older, newer, foreign = (
        replace(ENTRY, name=name, file=f"engines/{name}/model.engine", compute_capabilities=(capability,))
        for name, capability in (("older", "89"), ("newer", "89"), ("foreign", "87"))
    )
    bundle = make(older, replace(newer, max_kv_cache_capacity=64), foreign)
    assert "engine newer" in session_from_bundle(bundle, backend="tensorrt").description
    assert "engine newer" in session_from_bundle(bundle, backend="tensorrt", capacity=64).description
    assert "engine older" in session_from_bundle(bundle, backend="tensorrt", capacity=65).description
    assert b"foreign" not in trt.deserialised
    fact = refused(bundle, capacity=3000).fact
    assert "foreign is for compute capability 87" in fact
    assert "newer holds 64" in fact
    assert "older holds 2048" in fact


def test_what_tensorrt_is_not_here_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make(ENTRY)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    error = refused(bundle)
    assert isinstance(error, SessionError)
    assert "engine sm89-fp32 needs tensorrt 10.3.0.30" in error.rule
    assert "pip install tensorrt==10.3.0.30" in error.next_step
    monkeypatch.setitem(sys.modules, "tensorrt", sys)
    assert "placeholder" in refused(bundle).fact


def test_another_version_and_backend_are_refused_before_the_file_is_read(make: Make, trt: FakeTensorRT) -> None:
    other = replace(ENTRY, backend_version="10.13.3", name="x", file="engines/x/model.engine")
    assert "built by 10.13.3, here is 10.3.0.30" in refused(make(other)).fact
    assert not trt.deserialised


def test_an_unknown_backend_of_an_engine_is_refused(make: Make) -> None:
    assert "'rocm'" in refused(make(replace(ENTRY, backend="rocm"))).fact


def test_a_damaged_engine_is_refused_before_it_is_used(make: Make, trt: FakeTensorRT) -> None:
    bundle = make(ENTRY)
    (bundle.path / ENTRY.file).write_text("sm89-fp64")
    error = refused(bundle)
    assert isinstance(error, BundleError)
    assert "altered" in error.fact
    assert not trt.deserialised


def test_what_tensorrt_says_against_an_engine_is_passed_on(make: Make, trt: FakeTensorRT) -> None:
    bundle = make(ENTRY)
    trt.engines.clear()
    error = refused(bundle)
    assert isinstance(error, BundleError)
    assert "Serialization (magic tag) In throwUnlessHeaderOk" in error.fact


@pytest.mark.parametrize(
    ("registered", "fact"),
    [
        ([("TPAAttention", "1", "edgekit")], ""),
        ([("TPAAttention", "2", "edgekit")], "has version 2"),
        ([("TPAAttention", "1", "other")], "it is not there"),
        (None, "cannot open"),
    ],
)
def test_plugins_are_loaded_and_checked(
    make: Make, trt: FakeTensorRT, tmp_path: Path, registered: list[tuple[str, str, str]] | None, fact: str
) -> None:
    (tmp_path / "library").write_bytes(LIBRARY)
    bundle = make(with_plugin(sha256_of(tmp_path / "library")))
    if registered is not None:
        trt.plugins[str(bundle.path / bundle.manifest.engines[0].plugins[0].library)] = registered
    if fact:
        assert fact in refused(bundle).fact
    else:
        session_from_bundle(bundle, backend="tensorrt").close()


def test_a_library_that_is_not_the_one_it_was_built_with_is_not_loaded(make: Make, trt: FakeTensorRT) -> None:
    bundle = make(with_plugin("1" * 64))
    assert "another one" in refused(bundle).fact
    assert not trt.deserialised


def test_function_bodies_cannot_be_asked_for(make: Make) -> None:
    assert "standard operators were asked for" in refused(make(ENTRY), operators="functions").fact


def test_without_a_gpu_the_real_tensorrt_rtx_is_refused_with_the_reason(make: Make, monkeypatch: Any) -> None:
    """Nothing is fake here: the installed TensorRT-RTX, the installed CUDA runtime, and no GPU."""
    from edgekit.runtime.cuda_library import load_cuda

    if importlib.util.find_spec("tensorrt_rtx") is None:
        lacking("tensorrt-rtx-cu13 is not installed")
    monkeypatch.setattr("edgekit.runtime.trt_choice.load_cuda", load_cuda)
    try:
        if load_cuda().gpu() is not None:
            pytest.skip("there is a GPU")
    except SessionError as error:
        lacking(f"no CUDA runtime: {error.fact}")
    version = importlib.metadata.version("tensorrt_rtx_cu13")
    bundle = make(replace(ENTRY, backend="tensorrt-rtx", backend_version=version))
    error = refused(bundle)
    assert isinstance(error, BundleError)
    assert "this machine has no GPU" in error.fact
