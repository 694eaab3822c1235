"""A bundle appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import check_files, read_bundle, write_bundle
from edgekit.bundle.write import check_destination, publish
from edgekit.errors import BundleError, DoesNotFit

Writer = Callable[..., Path]
Filler = Callable[[Path], dict[str, Any]]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_nothing_is_there_until_the_block_ends(tmp_path: Path, paper_draft: Filler) -> None:
    final = tmp_path / "deep" / "bundle"
    with write_bundle(final) as draft:
        draft.manifest.update(paper_draft(draft.path))
        assert not final.exists()
        assert draft.path.parent == final.parent
    assert _names(final.parent) == {"bundle"}
    assert read_bundle(final, verify="full").manifest.edgekit


def test_an_empty_directory_is_taken(tmp_path: Path, paper_bundle: Writer) -> None:
    (tmp_path / "bundle").mkdir()
    assert read_bundle(paper_bundle(), verify="full")


def test_an_exception_leaves_nothing(tmp_path: Path, paper_draft: Filler) -> None:
    with pytest.raises(KeyboardInterrupt), write_bundle(tmp_path / "bundle") as draft:
        paper_draft(draft.path)
        raise KeyboardInterrupt
    assert _names(tmp_path) == set()


def test_an_exception_leaves_the_earlier_bundle(tmp_path: Path, paper_bundle: Writer) -> None:
    path = paper_bundle()
    with pytest.raises(ZeroDivisionError), write_bundle(path, overwrite=True) as draft:
        (draft.path / "model.onnx").write_bytes(b"new")
        raise ZeroDivisionError
    assert _names(tmp_path) == {"bundle"}
    assert read_bundle(path, verify="full")


def test_an_incomplete_manifest_is_refused(tmp_path: Path, paper_draft: Filler) -> None:
    def write() -> None:
        with write_bundle(tmp_path / "bundle") as draft:
            draft.manifest.update(paper_draft(draft.path))
            del draft.manifest["cache"]

    with pytest.raises(BundleError, match="cache is missing"):
        write()
    assert _names(tmp_path) == set()


def test_a_link_in_the_draft_is_refused(tmp_path: Path, paper_draft: Filler) -> None:
    def write() -> None:
        with write_bundle(tmp_path / "bundle") as draft:
            draft.manifest.update(paper_draft(draft.path))
            (draft.path / "weights").symlink_to("/etc/hostname")

    with pytest.raises(BundleError, match="weights is a link"):
        write()


def test_a_bundle_is_replaced_only_when_asked(paper_bundle: Writer) -> None:
    path = paper_bundle()
    with pytest.raises(BundleError, match="already holds one"):
        paper_bundle()
    (path / "parity.json").write_text("{}")
    (path / "old.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"also holds old\.bin"):
        paper_bundle(overwrite=True)
    (path / "old.bin").unlink()
    paper_bundle(overwrite=True)
    assert not (path / "parity.json").exists()
    assert read_bundle(path, verify="full")


def test_a_damaged_bundle_can_be_replaced(paper_bundle: Writer) -> None:
    path = paper_bundle()
    (path / "model.onnx").unlink()
    paper_bundle(overwrite=True)
    assert read_bundle(path, verify="full")


@pytest.mark.parametrize("manifest", [None, "{", '{"name": "extension", "version": "1"}', '{"schema": 1, "files": []}'])
def test_other_directories_are_never_replaced(tmp_path: Path, paper_bundle: Writer, manifest: str | None) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "bundle" / "manifest.json").write_text(manifest)
    with pytest.raises(BundleError, match="holds other files"):
        paper_bundle(overwrite=True)
    assert (tmp_path / "bundle" / "thesis.tex").read_text() == "years of work"


def test_a_file_is_never_replaced(tmp_path: Path, paper_bundle: Writer) -> None:
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(BundleError, match="is a file"):
        paper_bundle(overwrite=True)


def test_a_linked_destination_stays_a_link(tmp_path: Path, paper_bundle: Writer) -> None:
    real = paper_bundle("real")
    (tmp_path / "link").symlink_to(real)
    inode = real.stat().st_ino
    paper_bundle("link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert real.stat().st_ino != inode
    assert read_bundle(tmp_path / "link", verify="full")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path, code: int) -> None:
    with pytest.raises(DoesNotFit, match="ran full") as caught, write_bundle(tmp_path / "bundle"):
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == 4
    assert _names(tmp_path) == set()


def test_a_disk_that_fills_with_the_manifest_leaves_nothing(
    tmp_path: Path, paper_draft: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    synced: list[int] = []

    def full_on_the_last(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 4:  # four files, then the manifest
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_on_the_last)

    def write() -> None:
        with write_bundle(tmp_path / "bundle") as draft:
            draft.manifest.update(paper_draft(draft.path))

    with pytest.raises(DoesNotFit):
        write()
    assert _names(tmp_path) == set()


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), write_bundle(tmp_path / "bundle"):
        raise PermissionError(errno.EACCES, "no")
    assert _names(tmp_path) == set()


WAIT_INSIDE = """
import sys, time
from pathlib import Path
from edgekit.bundle import write_bundle
with write_bundle(sys.argv[1], overwrite=True) as draft:
    (draft.path / "model.onnx").write_bytes(b"half")
    print(draft.path, flush=True)
    time.sleep(60)
"""
WAIT_BETWEEN_RENAMES = """
import os, sys, time
from edgekit.bundle import write, write_bundle, read_bundle
source = read_bundle(sys.argv[1])
real = os.rename
def rename(old, new):
    if str(new) == sys.argv[1]:
        print(old, flush=True)
        time.sleep(60)
    real(old, new)
os.rename = rename
with write_bundle(sys.argv[1], overwrite=True) as draft:
    for entry in source.manifest.files:
        (draft.path / entry.name).parent.mkdir(exist_ok=True)
        (draft.path / entry.name).write_bytes((source.path / entry.name).read_bytes())
    draft.manifest.update(source.manifest.raw)
"""


def _killed_writer(script: str, final: Path) -> Path:
    """Start a writer, kill it with SIGKILL where it waits, and give its partial directory."""
    with subprocess.Popen([sys.executable, "-c", script, str(final)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        partial = Path(writer.stdout.readline().strip())
        assert partial.is_dir()
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(30) == -signal.SIGKILL
    return partial


def test_a_killed_writer_leaves_nothing_that_loads_and_the_next_one_cleans_up(
    tmp_path: Path, paper_bundle: Writer
) -> None:
    partial = _killed_writer(WAIT_INSIDE, tmp_path / "bundle")
    assert _names(tmp_path) == {partial.name}
    with pytest.raises(BundleError, match="did not finish"):
        read_bundle(partial)
    paper_bundle()
    assert _names(tmp_path) == {"bundle"}


def test_a_killed_writer_leaves_the_earlier_bundle(tmp_path: Path, paper_bundle: Writer) -> None:
    path = paper_bundle()
    _killed_writer(WAIT_INSIDE, path)
    assert read_bundle(path, verify="full")


def test_a_writer_killed_between_its_renames_loses_no_bundle(tmp_path: Path, paper_bundle: Writer) -> None:
    path = paper_bundle()
    inode = path.stat().st_ino
    _killed_writer(WAIT_BETWEEN_RENAMES, path)
    assert not path.exists()
    with pytest.raises(BundleError, match="already holds one"):
        paper_bundle()  # the next writer first puts the earlier bundle back
    assert path.stat().st_ino == inode
    assert _names(tmp_path) == {"bundle"}
    assert read_bundle(path, verify="full")


def test_publishing_clears_what_dead_writers_left(tmp_path: Path, paper_bundle: Writer) -> None:
    path, waiting = paper_bundle(), paper_bundle("waiting")
    inode = waiting.stat().st_ino
    _killed_writer(WAIT_BETWEEN_RENAMES, path)
    assert not path.exists()
    assert len(_names(tmp_path)) == 3  # what the dead writer wrote, the bundle it moved aside, and the waiting one
    publish(waiting, path, overwrite=True)
    assert _names(tmp_path) == {"bundle"}
    assert path.stat().st_ino == inode


def test_publishing_replaces_no_bundle_that_a_dead_writer_moved_aside_unless_asked(
    tmp_path: Path, paper_bundle: Writer
) -> None:
    path, waiting = paper_bundle(), paper_bundle("waiting")
    inode = path.stat().st_ino
    _killed_writer(WAIT_BETWEEN_RENAMES, path)
    with pytest.raises(BundleError, match="already holds one"):
        publish(waiting, path, overwrite=False)
    assert _names(tmp_path) == {"bundle", "waiting"}
    assert path.stat().st_ino == inode


def test_publishing_through_a_link_keeps_the_link(tmp_path: Path, paper_bundle: Writer) -> None:
    path, waiting = paper_bundle(), paper_bundle("waiting")
    inode = waiting.stat().st_ino
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(BundleError, match="already holds one"):
        check_destination(link, overwrite=False)
    check_destination(link, overwrite=True)
    publish(waiting, link, overwrite=True)
    assert link.is_symlink()
    assert path.stat().st_ino == inode


def test_a_living_writer_is_left_alone(tmp_path: Path, paper_bundle: Writer, paper_draft: Filler) -> None:
    with write_bundle(tmp_path / "bundle", overwrite=True) as draft:
        paper_bundle()
        assert draft.path.is_dir()
        draft.manifest.update(paper_draft(draft.path))
        (draft.path / "config.json").write_text('{"second": true}')
    assert _names(tmp_path) == {"bundle"}
    assert (tmp_path / "bundle" / "config.json").read_text() == '{"second": true}'


def test_the_second_of_two_writers_without_overwrite_is_refused(
    tmp_path: Path, paper_bundle: Writer, paper_draft: Filler
) -> None:
    def slow() -> None:
        with write_bundle(tmp_path / "bundle") as draft:
            paper_bundle()
            draft.manifest.update(paper_draft(draft.path))

    with pytest.raises(BundleError, match="already holds one"):
        slow()
    assert _names(tmp_path) == {"bundle"}
    assert read_bundle(tmp_path / "bundle", verify="full")


def test_many_writers_at_once_leave_one_whole_bundle(tmp_path: Path, paper_draft: Filler) -> None:
    failures: list[BaseException] = []

    def write(index: int) -> None:
        try:
            with write_bundle(tmp_path / "bundle", overwrite=True) as draft:
                draft.manifest.update(paper_draft(draft.path))
                (draft.path / "config.json").write_text(str(index) * 50)
                (draft.path / "model.onnx.data").write_text(str(index) * 50)
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert _names(tmp_path) == {"bundle"}
    bundle = read_bundle(tmp_path / "bundle", verify="full")
    assert all(check.ok for check in check_files(bundle, full=True))
    assert bundle.file("config.json").read_text() == bundle.file("model.onnx.data").read_text()
