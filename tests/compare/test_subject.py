"""What may be compared, how it is named, and why something is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekit.bundle import read_bundle, write_sidecar
from edgekit.checkpoint import open_checkpoint
from edgekit.compare.subject import open_subjects
from edgekit.errors import BundleError, CheckpointError, EdgekitError
from tests.parity.tiny_models import export, write_checkpoint


def test_the_first_bundle_is_the_reference(decoders: Path) -> None:
    found = open_subjects([decoders / "fp32", decoders / "int8"], None, offline=True)
    assert [subject.label for subject in found.all] == ["fp32", "int8"]
    assert found.reference is found.all[0]
    assert found.compared == found.all


def test_a_bundle_among_them_or_another_one_is_the_reference(decoders: Path) -> None:
    paths = [decoders / "int8", decoders / "fp32"]
    among = open_subjects(paths, str(decoders / "fp32"), offline=True)
    assert [subject.label for subject in among.all] == ["int8", "fp32"]
    assert among.reference is among.all[1]
    other = open_subjects(paths, str(decoders / "int4"), offline=True)
    assert [subject.label for subject in other.all] == ["int4", "int8", "fp32"]
    assert [subject.label for subject in other.compared] == ["int8", "fp32"]


def test_a_checkpoint_as_reference_has_a_size(decoders: Path) -> None:
    found = open_subjects([decoders / "int8"], str(decoders / "checkpoint"), offline=True)
    assert found.reference.label == "checkpoint (PyTorch)"
    assert found.reference.bytes >= (decoders / "checkpoint" / "model.safetensors").stat().st_size
    assert found.reference.proven is None


def test_names_are_as_long_as_tells_them_apart(decoders: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copytree(decoders / "int8", tmp_path / "other" / "fp32")
    found = open_subjects([decoders / "fp32", tmp_path / "other" / "fp32"], None, offline=True)
    assert [subject.label for subject in found.all] == [f"{decoders.name}/fp32", "other/fp32"]


def test_whether_parity_was_passed(copied: Path) -> None:
    def proven() -> bool | None:
        return open_subjects([copied], str(copied), offline=True).all[0].proven

    assert proven() is None
    write_sidecar(read_bundle(copied), "parity", {"passed": False, "failure": "x"})
    assert proven() is False
    write_sidecar(read_bundle(copied), "parity", {"passed": True, "failure": None})
    assert proven() is True


def test_the_same_bundle_twice(decoders: Path, copied: Path) -> None:
    with pytest.raises(EdgekitError, match="compared once"):
        open_subjects([decoders / "int8", decoders / "int8"], None, offline=True)
    with pytest.raises(EdgekitError, match="with the same manifest"):
        open_subjects([decoders / "int8", copied], None, offline=True)


def test_a_decoder_and_an_encoder(decoders: Path, encoders: Path) -> None:
    with pytest.raises(EdgekitError) as raised:
        open_subjects([decoders / "int8", encoders / "int8"], None, offline=True)
    assert "holds a decoder" in raised.value.fact
    assert f"{encoders / 'int8'} an encoder" in raised.value.fact


def test_vocabularies_of_other_sizes(decoders: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", "llama", vocab_size=300)
    bundle = export(open_checkpoint(other), tmp_path / "bundle")
    with pytest.raises(EdgekitError, match="same vocabulary") as raised:
        open_subjects([decoders / "int8", bundle.path], None, offline=True)
    assert "bundle has 300" in raised.value.fact
    with pytest.raises(EdgekitError, match="same vocabulary"):
        open_subjects([decoders / "int8"], str(other), offline=True)


def test_what_cannot_be_read(decoders: Path, copied: Path) -> None:
    with pytest.raises(BundleError):
        open_subjects([decoders / "int8", decoders / "checkpoint"], None, offline=True)
    with pytest.raises(CheckpointError):
        open_subjects([decoders / "int8"], str(decoders / "nothing"), offline=True)
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / manifest["graph"]["file"]).write_bytes(b"short")
    with pytest.raises(BundleError):
        open_subjects([decoders / "int8", copied], None, offline=True)
