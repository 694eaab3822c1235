"""Atomic writes, hashes and copies."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from edgekit.files import CHUNK_BYTES, atomic_write, cache_dir, copy_tree, sha256_of


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_hash_is_sha256_in_chunks(tmp_path: Path, size: int) -> None:
    content = b"x" * size
    (tmp_path / "file").write_bytes(content)
    seen: list[int] = []
    assert sha256_of(tmp_path / "file", seen.append, sync=True) == hashlib.sha256(content).hexdigest()
    assert sum(seen) == size
    assert max(seen, default=0) <= CHUNK_BYTES


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", "Grüße")
    assert (tmp_path / "file").read_bytes() == "Grüße".encode()
    atomic_write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(tmp_path / "file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", "~/models")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "models"
    monkeypatch.setenv("EDGEKIT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "edgekit"


def test_a_tree_is_copied_with_what_its_links_point_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.toml").write_text("a")
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    (source / "b.py").write_text("b")
    (source / "known").symlink_to(tmp_path / "elsewhere")
    copy_tree(source, tmp_path / "target", leave_out=shutil.ignore_patterns("__pycache__"))
    found = {str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*")}
    assert found == {"b.py", "known", "known/a.toml"}
    assert not (tmp_path / "target" / "known").is_symlink()


def test_the_first_failure_of_a_tree_is_raised_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("a")

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with pytest.raises(OSError, match="No space") as caught:
        copy_tree(tmp_path / "source", tmp_path / "target", copy=full)
    assert caught.value.errno == errno.ENOSPC
