"""The draft graph as a TensorRT-RTX engine, alone in every dtype, and beside the decoder's in a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.build import preflight
from edgekit.build.backends import backend_named
from edgekit.build.bundle_engine import engine_from_bundle, prepared_build
from edgekit.bundle import Bundle, read_bundle
from edgekit.bundle.read import read_manifest
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.cli.engine_rows import engine_rows
from edgekit.device.profile import device_profile
from edgekit.errors import BuildError, BundleError
from edgekit.files import sha256_of
from edgekit.runtime.engine_compatibility import check_engine_files
from tests.build.bundles import SIZES, copied, need_tensorrt_rtx, request
from tests.build.conftest import Build
from tests.export.tiny_heads import Drafted, export_with_heads, written_heads
from tests.parity.tiny_models import write_checkpoint


@pytest.fixture(scope="module", autouse=True)
def tensorrt_rtx() -> None:
    need_tensorrt_rtx()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("c") / "llama", "llama", **SIZES))


@pytest.fixture(scope="module")
def made(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("drafting")
    heads = written_heads(folder / "heads.safetensors", checkpoint, feature_layers=(1, 2))
    return export_with_heads(checkpoint, folder / "bundle", heads, "tensorrt", "fp16")


@pytest.mark.parametrize(
    ("form", "dtype", "components"),
    [
        ("tensorrt", "fp32", 4),
        ("tensorrt", "fp16", 1),
        ("tensorrt", "int8", 2),
        ("tensorrt", "int4", 2),
        ("jetpack6", "fp16", 2),
    ],
)
def test_every_dtype_builds(
    form: str, dtype: str, components: int, checkpoint: Checkpoint, build: Build, tmp_path: Path
) -> None:
    drafted = Drafted(checkpoint, tmp_path, form, dtype, components, feature_layers=(1, 2))
    built = build(tmp_path / "draft.onnx", axes={"batch_size": (1, 1, 3), "new_positions": (1, 2, 32)})
    assert "layers" in built, built
    assert built["layers"].get("TOPK", 0) == (components < 4)
    vocabulary = drafted.found.heads.config.vocabulary
    assert [(output["name"], output["dtype"], output["shape"]) for output in built["outputs"]] == [
        ("draft_log_weights", "float32", [-1, components]),
        ("draft_probabilities", "float32", [-1, 3, components, vocabulary]),
        ("draft_present", "float32", [-1, 7, 129]),
    ]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_bundle_gets_both_engines(made: Bundle, tmp_path: Path, own_cache: Path) -> None:
    bundle = copied(made, tmp_path / "bundle")
    entry, origin = engine_from_bundle(prepared_build(bundle, request(limits={"max_batch_size": 2})))
    found = read_bundle(bundle.path, verify="full")
    assert origin == "built"
    assert found.manifest.engines == (entry,)
    assert entry.draft is not None
    assert entry.engine_files == ("engines/sm89-fp16/model.engine", "engines/sm89-fp16/draft.engine")
    check_engine_files(found, entry)
    for file, size in ((entry.file, entry.engine_bytes), (entry.draft.file, entry.draft.engine_bytes)):
        assert (bundle.path / file).stat().st_size == size
    # Half precision: two bytes for each number of the heads and of what they keep of the model.
    data = (bundle.path / "draft.onnx.data").stat().st_size
    assert entry.draft.weights_bytes is not None
    assert 0.8 * data < entry.draft.weights_bytes < 1.2 * data
    [profile] = entry.draft.profiles
    ranges = {each.name: (each.smallest, each.usual, each.largest) for each in profile.shapes}
    assert profile.name == "draft"
    assert ranges == {
        "draft_features": ((1, 1, 128), (1, 2, 128), (2, 32, 128)),
        "draft_token": ((1, 1), (1, 2), (2, 32)),
        "draft_noise": ((1, 4), (1, 4), (2, 4)),
        "draft_past": ((1, 7, 129), (1, 7, 129), (2, 7, 129)),
    }
    assert f"built in {entry.draft.build_seconds:.1f} s" in dict(engine_rows(entry))["  draft heads"]

    # The same again is there already; another copy takes both from the cache.
    assert engine_from_bundle(prepared_build(found, request(limits={"max_batch_size": 2}))) == (entry, "bundle")
    other = copied(made, tmp_path / "other")
    again, origin = engine_from_bundle(prepared_build(other, request(limits={"max_batch_size": 2})))
    assert (again, origin) == (entry, "cache")
    for name in entry.engine_files:
        assert sha256_of(other.path / name) == sha256_of(bundle.path / name)

    # A build is expected to take as long as both took, and is not known by one of them.
    prepared = prepared_build(other, request(limits={"max_batch_size": 2}))
    assert prepared.draft is not None
    both = entry.build_seconds + entry.draft.build_seconds
    assert prepared.seconds_before == pytest.approx(both, abs=0.002)
    (own_cache / "engines" / prepared.draft.key / "build.json").rename(tmp_path / "build.json")
    assert prepared_build(other, request(limits={"max_batch_size": 2})).seconds_before is None
    (tmp_path / "build.json").rename(own_cache / "engines" / prepared.draft.key / "build.json")

    # An engine without its draft graph's is not whole.
    content = bytearray((bundle.path / entry.draft.file).read_bytes())
    content[-1] ^= 1
    (bundle.path / entry.draft.file).write_bytes(content)
    with pytest.raises(BundleError, match="its engine too") as caught:
        check_engine_files(found, entry)
    assert "draft.engine is altered" in caught.value.fact
    prepared = prepared_build(read_bundle(bundle.path, engines=False), request(limits={"max_batch_size": 2}))
    assert prepared.same is None
    assert prepared.draft is not None
    assert {prepared.key, prepared.draft.key} == {path.name for path in (own_cache / "engines").iterdir()}


def test_blocks_are_as_long_as_drafts_unless_asked(made: Bundle) -> None:
    device = device_profile("rtx-4090")
    assert preflight.served_limits(made, device, {}).max_draft_len == 3
    assert preflight.served_limits(made, device, {"max_draft_len": 7}).max_draft_len == 7


def changed(bundle: Bundle, change: Callable[[onnx.ModelProto], None]) -> Bundle:
    path = bundle.path / "draft.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    file = bundle.path / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text())
    for entry in manifest["files"]:
        if entry["name"] == "draft.onnx":
            entry.update(bytes=path.stat().st_size, sha256=sha256_of(path))
    file.write_text(json.dumps(manifest))
    return read_manifest(bundle.path)


def test_operators_of_the_draft_graph_are_checked_too(made: Bundle, tmp_path: Path) -> None:
    def no_tensor(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "StringSplit"

    bundle = changed(copied(made, tmp_path / "bundle"), no_tensor)
    with pytest.raises(BuildError, match="must be one that tensorrt") as caught:
        preflight.check_operators(bundle, backend_named("tensorrt"), "10.15.1")
    assert "in draft.onnx 1 is not" in caught.value.fact
    assert "StringSplit" in caught.value.fact
