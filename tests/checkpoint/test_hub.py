from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from edgekit.checkpoint import hub, pull
from edgekit.errors import CheckpointError

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakeHub:
    """Stands for snapshot_download: writes a directory, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repo_id: str, *, cache_dir: Path, **options: Any) -> str:
        self.calls.append({"repo_id": repo_id, **options})
        if self.error is not None:
            raise self.error
        path = cache_dir / "snapshot"
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        return str(path)


def quiet(line: str) -> None:
    """Says nothing."""


def test_a_repository_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    path = pull("owner/name", say=quiet)
    assert path == cache / "hub" / "snapshot"
    assert pull("owner/name", say=quiet) == path
    assert pull("owner/name", offline=True, say=quiet) == path
    assert [call["repo_id"] for call in fake.calls] == ["owner/name"]
    assert fake.calls[0]["allow_patterns"] == hub.ALLOW
    assert fake.calls[0]["ignore_patterns"] == hub.IGNORE


def test_a_cache_that_lost_the_directory_is_filled_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    shutil.rmtree(pull("owner/name", say=quiet))
    pull("owner/name", say=quiet)
    assert len(fake.calls) == 2
    assert cache.exists()


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("config.json", True),
        ("tokenizer.json", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("pytorch_model.bin", False),
        ("modeling_custom.py", False),
        ("tokenizer.py", False),
        ("tokenizer.pkl", False),
        ("onnx/config.json", False),
        ("original/consolidated.00.pth", False),
        ("README.md", False),
    ],
)
def test_what_is_fetched(file: str, wanted: bool) -> None:
    # The rule of huggingface_hub.utils.filter_repo_objects.
    allowed = any(fnmatch(file, p) for p in hub.ALLOW) and not any(fnmatch(file, p) for p in hub.IGNORE)
    assert allowed is wanted
    assert (
        list(huggingface_hub.utils.filter_repo_objects([file], allow_patterns=hub.ALLOW, ignore_patterns=hub.IGNORE))
        == [file] * wanted
    )


def test_offline_refuses_with_the_reason(cache: Path) -> None:
    with pytest.raises(CheckpointError, match="owner/name is not in") as error:
        pull("owner/name", offline=True, say=quiet)
    assert "edgekit pull owner/name" in error.value.next_step
    assert not cache.exists()


def test_no_network_is_a_clean_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("Name or service not known\nlong explanation")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(error))
    with pytest.raises(CheckpointError) as raised:
        pull("owner/name", say=quiet)
    assert raised.value.fact.endswith("Name or service not known")
    assert not list(cache.glob("hub/*.json"))


def test_without_the_package_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="is not installed") as error:
        pull("owner/name", say=quiet)
    assert "edgekit[export]" in error.value.next_step
    assert not cache.exists()
