"""What refuses an engine when it is to be loaded, and what each refusal says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle, BundleDraft, EngineEntry, read_bundle
from edgekit.bundle.engine_entry import InputRange, PluginUse, ShapeProfile
from edgekit.bundle.extend import engine_record, extend_bundle
from edgekit.bundle.read import read_manifest
from edgekit.device.profile import device_profile
from edgekit.errors import BundleError
from edgekit.runtime.engine_compatibility import (
    Machine,
    RegisteredPlugin,
    check_engine,
    check_engine_files,
    check_plugins,
)

CONTENT, LIBRARY = b"an engine", b"a library"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ENTRY = EngineEntry(
    name="sm89-fp16",
    file="engines/sm89-fp16/model.engine",
    backend="tensorrt-rtx",
    backend_version="1.7.1.116",
    compute_capabilities=("89",),
    device="rtx-4090",
    cuda="13",
    dtype="fp16",
    max_batch_size=1,
    max_input_len=512,
    max_kv_cache_capacity=2048,
    profiles=(ShapeProfile("decode", (InputRange("input_ids", (1, 1), (1, 1), (1, 5)),), ()),),
    plugins=(PluginUse("TPAAttention", "1", "edgekit", 5, "engines/sm89-fp16/libplugins.so", digest(LIBRARY)),),
    options=(),
    graph_sha256="0" * 64,
    cache_key="1" * 64,
    engine_bytes=len(CONTENT),
    weights_bytes=4,
    activation_bytes=None,
    build_seconds=1.5,
    build_peak_memory_bytes=1000,
)
UNEVEN = {"name": "x", "shapes": [{"name": "y", "smallest": [1], "usual": [1, 2], "largest": [1]}], "values": []}
HERE = Machine("89", "tensorrt-rtx", "1.7.1.116", "580.65.06", "13.0")


@pytest.fixture
def bundle(paper_bundle: Callable[..., Path]) -> Bundle:
    """A bundle with an engine, and the library it was built with."""
    with extend_bundle(read_bundle(paper_bundle())) as draft:
        for name, content in ((ENTRY.file, CONTENT), (ENTRY.plugins[0].library, LIBRARY)):
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.path / name).write_bytes(content)
        draft.manifest["engines"] = engine_record(draft.manifest, ENTRY.to_dict())
    return read_bundle(draft_of(draft), verify="full")


def draft_of(draft: BundleDraft) -> Path:
    """Where the bundle of a draft lies once it is whole: ".bundle.partial-1" is bundle."""
    return draft.path.with_name(draft.path.name[1:].partition(".partial-")[0])


def refusal(call: Callable[[], None]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        call()
    assert caught.value.exit_code == 5
    return caught.value


def test_an_engine_that_fits(bundle: Bundle) -> None:
    [entry] = bundle.manifest.engines
    assert entry == ENTRY
    check_engine(entry, HERE, bundle.path)
    check_engine_files(bundle, entry)
    check_plugins(entry, [RegisteredPlugin("TPAAttention", "1", "edgekit")])


def test_of_an_engine_those_files_are_read_that_are_loaded(bundle: Bundle) -> None:
    library = ENTRY.plugins[0].library
    (bundle.path / library).write_bytes(LIBRARY + b".")
    check_engine_files(bundle, ENTRY, [ENTRY.file])
    for names in ([library], [ENTRY.file, library], None):
        assert "libplugins.so is" in refusal(lambda names=names: check_engine_files(bundle, ENTRY, names)).fact


@pytest.mark.parametrize(
    ("machine", "fact", "mend"),
    [
        (
            replace(HERE, compute_capability="86"),
            "for compute capability 89, this GPU has 86",
            "--device a10 or rtx-3090",
        ),
        (replace(HERE, compute_capability="75"), "this GPU has 75", "--device DEVICE (one of compute capability 75)"),
        (replace(HERE, compute_capability=None), "this machine has no GPU", "edgekit export CHECKPOINT"),
        (
            replace(HERE, backend_version="1.6.0.9"),
            "was built by 1.7.1.116, here is 1.6.0.9",
            "--device rtx-4090; or pip",
        ),
        (replace(HERE, backend="tensorrt"), "was built by tensorrt-rtx, here is tensorrt", "--backend tensorrt"),
        (replace(HERE, cuda_version="12.9"), "(580.65.06) knows CUDA 12.9 at most", "install driver 580 or newer"),
        (replace(HERE, cuda_version=None, driver_version="575.1"), "this driver is 575.1", "install driver 580"),
    ],
    ids=["capability", "unknown", "no_gpu", "version", "backend", "cuda", "driver"],
)
def test_another_machine(machine: Machine, fact: str, mend: str) -> None:
    error = refusal(lambda: check_engine(ENTRY, machine, Path("here")))
    assert fact in error.fact
    assert mend in error.next_step


def test_the_device_that_is_named_has_the_capability() -> None:
    error = refusal(lambda: check_engine(ENTRY, replace(HERE, compute_capability="120"), Path("here")))
    names = error.next_step.removeprefix("edgekit build here --device ").split(" or ")
    assert names
    assert {device_profile(name).compute_capability for name in names} == {"120"}


@pytest.mark.parametrize(
    ("built", "here", "same"),
    [
        ("10.3.0", "10.3.0.26", True),
        ("10.3.0.26", "10.3.0.30", False),
        ("10.3.0", "10.3.1", False),
        ("11.4", "11.4", False),
    ],
)
def test_versions_are_the_same_as_far_as_they_are_written(built: str, here: str, same: bool) -> None:
    entry, machine = replace(ENTRY, backend_version=built), replace(HERE, backend_version=here)
    if same:
        check_engine(entry, machine)
    else:
        refusal(lambda: check_engine(entry, machine))


def test_a_driver_that_cannot_be_told_is_no_reason() -> None:
    check_engine(ENTRY, replace(HERE, cuda_version=None, driver_version=None))
    check_engine(ENTRY, replace(HERE, cuda_version="13.1", driver_version=None))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (ENTRY.file, lambda content: content[:-1] + b"_", "model.engine is altered: sha256"),
        (ENTRY.file, lambda content: content[:3], "model.engine is truncated: 3 bytes instead of 9"),
        (ENTRY.file, None, "model.engine is missing"),
        (ENTRY.plugins[0].library, None, "libplugins.so is missing"),
        (ENTRY.plugins[0].library, lambda content: b"another ib", "libplugins.so is grown"),
    ],
    ids=["corrupted", "truncated", "no_engine", "no_library", "foreign_library"],
)
def test_damaged_files(bundle: Bundle, name: str, change: Any, says: str) -> None:
    path = bundle.path / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    error = refusal(lambda: check_engine_files(read_manifest(bundle.path), ENTRY))
    assert says in error.fact
    assert error.next_step == f"build it again: edgekit build {bundle.path} --device rtx-4090 --rebuild"


def test_a_library_that_the_engine_was_not_built_with(bundle: Bundle) -> None:
    other = replace(ENTRY, plugins=(replace(ENTRY.plugins[0], sha256="2" * 64),))
    error = refusal(lambda: check_engine_files(bundle, other))
    assert "is another one than sm89-fp16 was built with" in error.fact


@pytest.mark.parametrize(
    ("registered", "says"),
    [
        ([], "calls edgekit::TPAAttention version 1, and it is not there"),
        ([RegisteredPlugin("TPAAttention", "1", "")], "and it is not there"),
        ([RegisteredPlugin("TPAAttention", "2", "edgekit")], "libplugins.so has version 2"),
    ],
    ids=["missing", "namespace", "version"],
)
def test_plugins_that_are_not_registered(registered: list[RegisteredPlugin], says: str) -> None:
    error = refusal(lambda: check_plugins(ENTRY, registered, Path("here")))
    assert says in error.fact
    assert "edgekit build here --device rtx-4090 --rebuild" in error.next_step


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("cuda", 13, "engines[0].cuda must be a text"),
        ("max_input_len", 0, "engines[0].max_input_len must be an integer of 1 or more"),
        ("build_seconds", "fast", "engines[0].build_seconds must be a number of 0 or more"),
        ("cache_key", "abc", "engines[0].cache_key must be 64 hexadecimal digits"),
        ("file", "../model.engine", "a manifest may only name files below its bundle"),
        ("file", "engines/other/model.engine", "a manifest lists every file of its engines"),
        ("profiles", [UNEVEN], "engines[0].profiles[0].shapes[0].largest must be as long as smallest, 1"),
    ],
)
def test_a_malformed_entry(bundle: Bundle, field: str, value: Any, says: str) -> None:
    file = bundle.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["engines"][0][field] = value
    file.write_text(json.dumps(manifest))
    assert says in str(refusal(lambda: read_manifest(bundle.path)))


def test_a_bundle_made_before_there_were_engines(bundle: Bundle) -> None:
    file = bundle.path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["engines"]
    file.write_text(json.dumps(manifest))
    assert read_manifest(bundle.path).manifest.engines == ()
