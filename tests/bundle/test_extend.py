"""Adding to a bundle: in one step, without touching what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.bundle import read_bundle, read_sidecar, write_sidecar
from edgekit.bundle.extend import engine_record, extend_bundle
from edgekit.errors import BundleError

Writer = Callable[..., Path]


def test_files_are_added_and_the_others_kept(paper_bundle: Writer) -> None:
    path = paper_bundle()
    old = read_bundle(path)
    inodes = {entry.name: (path / entry.name).stat().st_ino for entry in old.manifest.files}
    hashed: list[int] = []
    with extend_bundle(old, progress=hashed.append) as draft:
        (draft.path / "engines" / "one").mkdir(parents=True)
        (draft.path / "engines" / "one" / "model.engine").write_bytes(b"engine")
        draft.manifest["note"] = "added"
        assert not (path / "engines").exists()
    new = read_bundle(path, verify="full")
    assert {entry.name for entry in new.manifest.files} == {*inodes, "engines/one/model.engine"}
    assert {name: (path / name).stat().st_ino for name in inodes} == inodes
    assert sum(hashed) == len(b"engine")
    assert new.manifest.raw["note"] == "added"
    assert new.manifest.raw["edgekit"] == old.manifest.raw["edgekit"]
    assert [entry.name for entry in path.parent.iterdir()] == ["bundle"]


def test_a_directory_can_be_replaced(paper_bundle: Writer) -> None:
    path = paper_bundle()
    for content in (b"first", b"second"):
        with extend_bundle(read_bundle(path), without=["engines/one"]) as draft:
            folder = draft.path / "engines" / "one"
            folder.mkdir(parents=True)
            (folder / f"{content.decode()}.engine").write_bytes(content)
    bundle = read_bundle(path, verify="full")
    assert [e.name for e in bundle.manifest.files if e.name.startswith("engines")] == ["engines/one/second.engine"]


def test_a_failure_leaves_the_bundle_as_it_was(paper_bundle: Writer) -> None:
    path = paper_bundle()
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(RuntimeError), extend_bundle(read_bundle(path)) as draft:
        (draft.path / "half").write_bytes(b"half")
        raise RuntimeError
    assert (path / "manifest.json").read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["bundle"]
    read_bundle(path, verify="full")


def test_measurements_of_the_graph_stay(paper_bundle: Writer) -> None:
    path = paper_bundle()
    write_sidecar(read_bundle(path), "parity", {"passed": True})
    (path / "eval.json").write_text(json.dumps({"manifest_sha256": "0" * 64, "of": "another export"}))
    with extend_bundle(read_bundle(path)) as draft:
        (draft.path / "more").write_bytes(b"more")
    bundle = read_bundle(path, verify="full")
    assert read_sidecar(bundle, "parity") == {"passed": True}
    assert read_sidecar(bundle, "eval") is None


def test_a_bundle_that_changed_meanwhile_is_not_replaced(paper_bundle: Writer) -> None:
    path = paper_bundle()
    stale = read_bundle(path)
    with extend_bundle(read_bundle(path)) as draft:
        (draft.path / "first").write_bytes(b"first")
    with pytest.raises(BundleError, match="has been changed meanwhile"), extend_bundle(stale) as draft:
        (draft.path / "second").write_bytes(b"second")
    assert read_bundle(path, verify="full").has("first")
    assert not read_bundle(path).has("second")


def test_without_hard_links_files_are_copied(paper_bundle: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = paper_bundle()
    with extend_bundle(read_bundle(path)) as draft:
        (draft.path / "more").write_bytes(b"more")
    assert read_bundle(path, verify="full").has("more")


def test_a_new_engine_is_the_last_and_the_only_one_of_its_name() -> None:
    record = engine_record({"engines": [{"name": "a", "old": 1}, {"name": "b"}]}, {"name": "a", "old": 0})
    assert record == [{"name": "b"}, {"name": "a", "old": 0}]
    assert engine_record({}, {"name": "a"}) == [{"name": "a"}]
