from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.checkpoint import open_checkpoint, pull
from edgekit.checkpoint.known_models import known_model, known_names
from edgekit.checkpoint.reference import is_repository, local_path
from edgekit.errors import CheckpointError


def test_a_gguf_file_and_a_directory_open(
    gguf_file: Callable[..., Path], hf_directory: Callable[..., Path], weights_of: Callable[..., Any]
) -> None:
    assert open_checkpoint(gguf_file()).format == "gguf"
    assert open_checkpoint(str(hf_directory(weights_of("llama")))).format == "safetensors"


def test_a_file_needs_no_particular_ending(gguf_file: Callable[..., Path]) -> None:
    assert open_checkpoint(gguf_file("model.bin")).format == "gguf"


def test_a_known_name_goes_before_a_file_of_that_name(
    gguf_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gguf_file("smollm2-135m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="smollm2-135m is not in"):
        open_checkpoint("smollm2-135m", offline=True)
    assert open_checkpoint("./smollm2-135m").format == "gguf"
    assert open_checkpoint(Path("smollm2-135m")).format == "gguf"


def test_a_mistyped_known_name_gets_the_nearest() -> None:
    for use in (open_checkpoint, pull):
        with pytest.raises(CheckpointError) as error:
            use("smolm2-135")
        assert "'smolm2-135'" in error.value.fact
        assert error.value.next_step == "did you mean smollm2-135m?"


def test_something_else_gets_the_known_names() -> None:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint("/nowhere/model.gguf")
    assert error.value.next_step == f"known names: {', '.join(known_names())}"
    with pytest.raises(CheckpointError, match="no file or directory"):
        open_checkpoint(Path("owner/name"))  # a Path is never a repository


def test_a_weight_file_alone_points_at_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert str(tmp_path) in error.value.next_step


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("a/b.c_d-e", True),
        ("a/b/c", False),
        ("a", False),
        ("./a", False),
        ("../a", False),
        ("/a", False),
        ("~/a", False),
        ("a/..", False),
        ("a/model.gguf", False),
        ("a\\b/c", False),
    ],
)
def test_what_looks_like_a_repository(ref: str, expected: bool) -> None:
    assert is_repository(ref) is expected


def test_pull_returns_a_local_path_as_it_is(tmp_path: Path) -> None:
    assert pull(tmp_path) == tmp_path
    assert local_path(str(tmp_path)) == tmp_path


def test_every_known_model_is_well_formed() -> None:
    assert "smollm2-135m" in known_names()
    for name in known_names():
        model = known_model(name)
        assert all("==" in package for package in model.packages)
        assert len(model.parts) in (0, len(model.packages))
        assert model.licence
        assert model.directory is (len(model.files) > 1)
        for file in model.files:
            assert len(file.sha256) == 64
            assert set(file.sha256) <= set("0123456789abcdef")
            assert file.bytes > 0
            assert file.member.endswith(file.name)
            assert not Path(file.name).is_absolute()
            assert ".." not in file.name
    with pytest.raises(KeyError):
        known_model("../known")
