"""A bundle that is not as its manifest says is refused with the file's name and what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, check_files, read_bundle
from edgekit.errors import BundleError

Writer = Callable[..., Path]


def test_intact_bundle_opens_with_either_check(paper_bundle: Writer) -> None:
    path = paper_bundle()
    hashed: list[int] = []
    assert read_bundle(path).manifest.model.name == "paper"
    bundle = read_bundle(str(path), verify="full", progress=hashed.append)
    assert sum(hashed) == bundle.manifest.bytes
    assert bundle.file("tokenizer/vocab.txt").read_text(encoding="utf-8") == "Zürich\n"
    assert bundle.graph == path / "model.onnx"


def test_bundle_moves_and_links_as_a_whole(paper_bundle: Writer, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(paper_bundle(), moved)
    link = tmp_path / "link"
    link.symlink_to(moved)
    assert read_bundle(link, verify="full").manifest.bytes == 10751


def test_only_listed_files_are_given(paper_bundle: Writer) -> None:
    path = paper_bundle()
    (path / "extra.py").write_text("pass")
    bundle = read_bundle(path)
    assert not bundle.has("extra.py")
    with pytest.raises(BundleError, match=r"extra.py is not one of them"):
        bundle.file("extra.py")


def _refusal(path: Path, verify: str = "size") -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_bundle(path, verify=verify)  # type: ignore[arg-type]
    assert caught.value.exit_code == 5
    assert caught.value.next_step
    return caught.value


def test_missing_file(paper_bundle: Writer) -> None:
    path = paper_bundle()
    (path / "model.onnx.data").unlink()
    assert f"{path / 'model.onnx.data'} is missing" in _refusal(path).fact


def test_truncated_file(paper_bundle: Writer) -> None:
    path = paper_bundle()
    os.truncate(path / "model.onnx.data", 12)
    assert "model.onnx.data is truncated: 12 bytes instead of 10240" in _refusal(path).fact


def test_grown_file(paper_bundle: Writer) -> None:
    path = paper_bundle()
    os.truncate(path / "config.json", 100)
    assert "config.json is grown: 100 bytes instead of 3" in _refusal(path).fact


def test_altered_file_of_the_same_size_is_found_by_the_full_check(paper_bundle: Writer) -> None:
    path = paper_bundle()
    (path / "config.json").write_bytes(b"[]\n")
    assert read_bundle(path, verify="size")
    assert "config.json is altered: sha256" in _refusal(path, "full").fact


def test_several_damaged_files_are_counted(paper_bundle: Writer) -> None:
    path = paper_bundle()
    for name in ("config.json", "model.onnx", "model.onnx.data"):
        (path / name).unlink()
    assert "(and 2 more: edgekit verify" in _refusal(path).fact


@pytest.mark.parametrize("target", ["outside", "model.onnx.data"])
def test_link_in_place_of_a_file_is_refused(paper_bundle: Writer, tmp_path: Path, target: str) -> None:
    path = paper_bundle()
    data = (path / "model.onnx").read_bytes()
    (tmp_path / "outside").write_bytes(data)
    (path / "model.onnx").unlink()
    (path / "model.onnx").symlink_to(tmp_path / target if target == "outside" else target)
    assert "model.onnx is not a file: a symbolic link" in _refusal(path).fact


def test_linked_folder_is_refused(paper_bundle: Writer, tmp_path: Path) -> None:
    path = paper_bundle()
    shutil.move(path / "tokenizer", tmp_path / "outside")
    (path / "tokenizer").symlink_to(tmp_path / "outside")
    assert "tokenizer/vocab.txt is not a file" in _refusal(path).fact


def test_folder_in_place_of_a_file_is_refused(paper_bundle: Writer) -> None:
    path = paper_bundle()
    (path / "config.json").unlink()
    (path / "config.json").mkdir()
    assert "config.json is not a file: a directory" in _refusal(path).fact


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"null", b'"text"'])
def test_unreadable_manifest(paper_bundle: Writer, content: bytes) -> None:
    path = paper_bundle()
    (path / "manifest.json").write_bytes(content)
    assert "manifest.json" in str(_refusal(path))


def test_things_that_are_no_bundle(tmp_path: Path) -> None:
    assert "does not exist" in _refusal(tmp_path / "nowhere").fact
    (tmp_path / "model.onnx").touch()
    assert "is a file" in _refusal(tmp_path / "model.onnx").fact
    assert "has none" in _refusal(tmp_path).fact


@pytest.mark.parametrize("name", [".bundle.partial-123", ".bundle.partial-123-2", ".bundle.replaced-9"])
def test_unfinished_bundle_is_refused_even_when_complete(paper_bundle: Writer, tmp_path: Path, name: str) -> None:
    paper_bundle().rename(tmp_path / name)
    assert "did not finish" in _refusal(tmp_path / name).fact


def _statuses(bundle: Bundle) -> dict[str, str]:
    return {check.name: check.status for check in check_files(bundle, full=True)}


def test_check_files_reports_all_and_unlisted_ones(paper_bundle: Writer) -> None:
    path = paper_bundle()
    bundle = read_bundle(path)
    (path / "config.json").write_bytes(b"[]\n")
    (path / "notes.txt").write_text("mine")
    (path / "parity.json").write_text("{}")
    assert _statuses(bundle) == {
        "config.json": "altered",
        "model.onnx": "ok",
        "model.onnx.data": "ok",
        "tokenizer/vocab.txt": "ok",
        "notes.txt": "unlisted",
    }
