"""The graph with its residual stream as outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.bundle import Bundle
from edgekit.errors import BundleError
from edgekit.parity.observe import observe
from edgekit.parity.tapped import TappedSession
from edgekit.runtime.ort_session import OrtSession
from edgekit.runtime.session import session_from_bundle
from tests.parity.sabotage import copied

TEXT = np.random.default_rng(0).integers(0, 260, 30).tolist()


@pytest.mark.parametrize("form", ["ort", "portable"])
def test_it_computes_what_the_runtime_computes(form: str, tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle("llama", form)
    runtime = session_from_bundle(bundle, threads=1)
    assert isinstance(runtime, OrtSession)
    expected = observe(runtime, TEXT, [30])
    found = observe(TappedSession(bundle, 40, threads=1), TEXT, [11, 18, 1])
    assert np.abs(found.logits - expected.logits).max() < 1e-4
    assert [state.shape for state in found.hidden] == [(30, 64)] * 4
    for layer, other in zip(found.caches, expected.caches, strict=True):
        for suffix, wanted in other.items():
            own = layer[suffix]
            assert own.shape == wanted.shape == (1, 2, 30, 16)
            assert np.abs(own - wanted).max() < 1e-4


def test_unused_memory_of_a_shared_cache_is_poisoned(tiny_bundle: Callable[..., Bundle]) -> None:
    session = TappedSession(tiny_bundle("llama"), 40, threads=1)
    session.forward(np.array([TEXT]))
    buffers = session._past.values()
    assert all(np.isfinite(buffer[:, :, :30]).all() for buffer in buffers)
    assert all(np.isnan(buffer[:, :, 30:]).all() for buffer in buffers)
    session.reset()
    assert all(np.isnan(buffer).all() for buffer in session._past.values())


def test_the_bundle_is_not_touched(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = copied(tiny_bundle("llama", "ort", "int8"), tmp_path / "bundle")
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    TappedSession(bundle, 8, threads=1).forward(np.array([[1, 2]]))
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_a_manifest_without_taps(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle("llama")
    graph = replace(bundle.manifest.graph, taps=bundle.manifest.graph.taps[:-1])
    with pytest.raises(BundleError, match="4 taps are needed .hidden.0 to hidden.3., it names 3"):
        TappedSession(replace(bundle, manifest=replace(bundle.manifest, graph=graph)), 8)


def test_a_graph_without_a_tap(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = copied(tiny_bundle("llama"), tmp_path / "bundle")
    model = onnx.load(bundle.graph, load_external_data=False)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["renamed" if name == "hidden.2" else name for name in names]
    onnx.save(model, bundle.graph)
    with pytest.raises(BundleError, match="has no tensor hidden.2"):
        TappedSession(bundle, 8)
