"""Bundles of tiny models, really built by TensorRT-RTX, without a GPU, in every dtype and for several GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
from edgekit.build.process import Tick
from edgekit.bundle import Bundle, EngineEntry, read_bundle, read_sidecar, write_sidecar
from edgekit.checkpoint import open_checkpoint
from edgekit.errors import BundleError
from edgekit.files import sha256_of
from edgekit.runtime.engine_compatibility import RegisteredPlugin, check_engine_files, check_plugins
from tests.build.bundles import copied, need_tensorrt_rtx, request, tiny_bundle
from tests.parity.tiny_models import export


@pytest.fixture(scope="module", autouse=True)
def tensorrt_rtx() -> None:
    need_tensorrt_rtx()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {dtype: tiny_bundle(tmp_path_factory.mktemp(dtype), dtype) for dtype in ("fp32", "fp16", "int8", "int4")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(bundle: Bundle, device: str = "rtx-4090", **options: Any) -> tuple[EngineEntry, str]:
    return engine_from_bundle(prepared_build(bundle, request(device, **options)))


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8", "int4"])
def test_every_dtype_builds(made: dict[str, Bundle], dtype: str, tmp_path: Path) -> None:
    bundle = copied(made[dtype], tmp_path / "bundle")
    entry, origin = build(bundle)
    assert origin == "built"
    found = read_bundle(bundle.path, verify="full")
    assert found.manifest.engines == (entry,)
    check_engine_files(found, entry)
    assert (entry.name, entry.dtype, entry.compute_capabilities) == (f"sm89-{dtype}", dtype, ("89",))
    assert (entry.backend, entry.device, entry.cuda) == ("tensorrt-rtx", "rtx-4090", "13")
    assert entry.engine_bytes == (bundle.path / entry.file).stat().st_size
    # Matrices as many bytes a weight as their type has; norms, tables and scales come on top. In int4 the head is int8.
    weights = matrices(bundle)
    least = {"fp32": 4, "fp16": 2, "int8": 1, "int4": 0.5}[dtype] * weights
    assert entry.weights_bytes is not None
    assert least <= entry.weights_bytes < 1.3 * least + 60_000
    assert entry.build_peak_memory_bytes is not None
    assert 100e6 < entry.build_peak_memory_bytes < 4e9


def matrices(bundle: Bundle) -> int:
    """Weights in the matrices of a bundle's model, the tied head counted once."""
    model = bundle.manifest.model
    config = json.loads((bundle.path / "config.json").read_text())
    attention = 2 * model.hidden_size * model.head_dim * (model.heads + model.kv_heads)
    layer = attention + 3 * model.hidden_size * config["intermediate_size"]
    return int(model.layers * layer + model.vocab_size * model.hidden_size)


def test_profiles_hold_what_was_asked_for(made: dict[str, Bundle], tmp_path: Path) -> None:
    entry, _ = build(copied(made["fp16"], tmp_path / "bundle"), limits={"max_batch_size": 3})
    assert (entry.max_batch_size, entry.max_input_len, entry.max_kv_cache_capacity) == (3, 8, 32)
    ranges = {
        profile.name: {each.name: (each.smallest, each.usual, each.largest) for each in profile.shapes + profile.values}
        for profile in entry.profiles
    }
    assert list(ranges) == ["prefill", "decode"]
    assert ranges["prefill"]["input_ids"] == ((1, 1), (1, 8), (3, 8))
    # Drafts of two tokens are verified with the one before them.
    assert ranges["decode"]["input_ids"] == ((1, 1), (1, 1), (3, 3))
    assert ranges["decode"]["attention_mask"] == ((1, 1), (1, 16), (3, 32))
    # Written in place, in buffers whose capacity the graph fixes.
    assert ranges["decode"]["past_key_values.0.key"] == ((1, 2, 256, 16), (1, 2, 256, 16), (3, 2, 256, 16))
    assert ranges["prefill"]["num_logits_to_keep"] == ((0,), (1,), (8,))


def test_engines_for_three_gpus_in_one_bundle(made: dict[str, Bundle], tmp_path: Path) -> None:
    path = copied(made["int4"], tmp_path / "bundle").path
    for device in ("rtx-3090", "rtx-4090", "rtx-5090"):
        build(read_bundle(path), device)
    engines = read_bundle(path, verify="full").manifest.engines
    assert [(e.name, e.compute_capabilities) for e in engines] == [
        ("sm86-int4", ("86",)),
        ("sm89-int4", ("89",)),
        ("sm120-int4", ("120",)),
    ]
    assert len({sha256_of(path / engine.file) for engine in engines}) == 3


def test_nothing_is_built_twice(made: dict[str, Bundle], tmp_path: Path, own_cache: Path) -> None:
    first, second = (copied(made["fp16"], tmp_path / name) for name in ("first", "second"))
    entry, origin = build(first)
    assert origin == "built"
    assert build(read_bundle(first.path)) == (entry, "bundle")
    assert build(second) == (entry, "cache")
    assert sha256_of(first.path / entry.file) == sha256_of(second.path / entry.file)
    # Another device of the same compute capability has the same engine; other sizes make another.
    assert prepared_build(read_bundle(first.path), request("l40s", backend="tensorrt-rtx")).key == entry.cache_key
    assert prepared_build(first, request(limits={"max_input_len": 9})).key != entry.cache_key
    assert prepared_build(first, request(options=("weight_streaming",))).key != entry.cache_key
    assert prepared_build(first, request("rtx-3090")).key != entry.cache_key
    assert prepared_build(made["fp32"], request()).key != entry.cache_key
    assert prepared_build(second, request()).seconds_before == pytest.approx(entry.build_seconds, abs=0.001)
    assert len(list((own_cache / "engines").iterdir())) == 1


def test_a_new_engine_takes_the_place_of_one_of_its_name(made: dict[str, Bundle], tmp_path: Path) -> None:
    path = copied(made["fp16"], tmp_path / "bundle").path
    old, _ = build(read_bundle(path))
    build(read_bundle(path), limits={"max_input_len": 4}, name="short")
    new, _ = build(read_bundle(path), options=("weight_streaming",))
    engines = read_bundle(path, verify="full").manifest.engines
    assert [(e.name, e.options) for e in engines] == [("short", ()), ("sm89-fp16", ("weight_streaming",))]
    assert new.cache_key != old.cache_key


def test_a_damaged_engine_is_built_again(made: dict[str, Bundle], tmp_path: Path) -> None:
    path = copied(made["fp16"], tmp_path / "bundle").path
    old, _ = build(read_bundle(path), cache=False)
    build(read_bundle(path), "rtx-3090", cache=False)
    build(read_bundle(path), "rtx-5090", cache=False)
    content = bytearray((path / old.file).read_bytes())
    content[-1] ^= 1
    (path / old.file).write_bytes(content)
    (path / "engines/sm86-fp16/model.engine").unlink()
    with pytest.raises(BundleError, match=r"sm86-fp16/model\.engine is missing \(and 1 more"):
        read_bundle(path, verify="full")
    new, origin = build(read_bundle(path, verify="full", engines=False), cache=False)
    assert (origin, new.cache_key) == ("built", old.cache_key)
    assert [entry.name for entry in read_bundle(path, verify="full").manifest.engines] == ["sm120-fp16", "sm89-fp16"]


def test_measurements_and_the_rest_of_the_bundle_stay(made: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = copied(made["fp16"], tmp_path / "bundle")
    write_sidecar(bundle, "parity", {"passed": True})
    before = {entry.name: entry.sha256 for entry in bundle.manifest.files}
    build(read_bundle(bundle.path))
    after = read_bundle(bundle.path, verify="full")
    assert read_sidecar(after, "parity") == {"passed": True}
    assert {entry.name: entry.sha256 for entry in after.manifest.files if entry.name in before} == before


def test_phases_and_memory_are_told(made: dict[str, Bundle], tmp_path: Path) -> None:
    ticks: list[Tick] = []
    prepared = prepared_build(copied(made["fp16"], tmp_path / "bundle"), request(cache=False))
    engine_from_bundle(prepared, watch=ticks.append)
    started = [tick.phase for tick in ticks if tick.event == "start"]
    assert started[:2] == ["Parsing", "Building engine"]
    ended = [tick.phase for tick in ticks if tick.event == "end"]
    assert ended[-1] == "Building engine"
    peaks = [tick.peak_memory_bytes for tick in ticks]
    assert peaks == sorted(peaks)
    assert peaks[-1] > 50e6
    assert [tick.seconds for tick in ticks] == sorted(tick.seconds for tick in ticks)


def test_plugins_are_recorded_and_carried(tmp_path: Path, library: Path) -> None:
    checkpoint = open_checkpoint(Path(__file__).parents[2] / "exports/t6-small")
    bundle = export(checkpoint, tmp_path / "bundle", "tensorrt", "fp16")
    entry, _ = build(bundle, library=library)
    [plugin] = entry.plugins
    assert (plugin.name, plugin.version, plugin.namespace, plugin.nodes) == ("TPAAttention", "1", "edgekit", 5)
    assert plugin.sha256 == sha256_of(library) == sha256_of(bundle.path / plugin.library)
    found = read_bundle(bundle.path, verify="full")
    check_engine_files(found, entry)
    check_plugins(entry, [RegisteredPlugin("TPAAttention", "1", "edgekit")])
    # Caches in place: their capacity is the engine's, and no step goes beyond it.
    shapes = {each.name: each for each in entry.profiles[1].shapes}
    cache = shapes["past_key_values.0.key_a"]
    assert {cache.smallest[1], cache.usual[1], cache.largest[1]} == {32}
    assert shapes["attention_mask"].largest == (1, 32)


@pytest.mark.slow
@pytest.mark.model
def test_smollm2(smollm2_path: Path, tmp_path: Path) -> None:
    """The real weights in fp16 for one GPU."""
    bundle = export(open_checkpoint(smollm2_path), tmp_path / "bundle", "tensorrt", "fp16")
    entry, _ = build(bundle, limits={"max_kv_cache_capacity": 256, "max_input_len": 64})
    # 134,515,008 parameters of two bytes, the rotary tables beside them.
    assert entry.weights_bytes is not None
    assert 2 * 134_515_008 <= entry.weights_bytes <= 1.02 * 2 * 134_515_008
    assert np.isclose(entry.engine_bytes, entry.weights_bytes, rtol=0.25)


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_smollm2_quantised(smollm2_path: Path, tmp_path: Path, dtype: str) -> None:
    path = export(open_checkpoint(smollm2_path), tmp_path / "bundle", "tensorrt", dtype).path
    for device in ("rtx-3090", "rtx-4090", "rtx-5090"):
        entry, _ = build(read_bundle(path), device, limits={"max_kv_cache_capacity": 256, "max_input_len": 64})
        assert entry.weights_bytes is not None
        assert entry.weights_bytes <= {"int8": 1.02, "int4": 0.8}[dtype] * 134_515_008
