from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli.pull import command
from edgekit.errors import CheckpointError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_path_needs_no_pull(tmp_path: Path, cache: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}\n"
    assert "needs no pull" in result.stderr
    assert not cache.exists()


def test_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path), "--json"])
    assert json.loads(result.stdout) == {"checkpoint": str(tmp_path), "path": str(tmp_path), "local": True}


def test_a_known_name_prints_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.checkpoint import pulling

    def pull_known(model: object, *, say: object, **rest: object) -> Path:
        say("progress")  # type: ignore[operator]
        return tmp_path / "weights.gguf"

    monkeypatch.setattr(pulling, "pull_known", pull_known)
    result = CliRunner().invoke(command, ["smollm2-135m"])
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'weights.gguf'}\n"
    assert result.stderr == "progress\n"


@pytest.mark.parametrize("ref", ["smollm2-135m", "owner/name"])
def test_offline_refuses(ref: str, cache: Path) -> None:
    result = CliRunner().invoke(command, [ref, "--offline"])
    assert isinstance(result.exception, CheckpointError)
    assert "without a network" in result.exception.rule
    assert not cache.exists()


def test_a_mistyped_name_gets_the_nearest() -> None:
    result = CliRunner().invoke(command, ["smollm-135m"])
    assert isinstance(result.exception, CheckpointError)
    assert result.exception.next_step == "did you mean smollm2-135m?"


def test_list() -> None:
    result = CliRunner().invoke(command, ["--list"])
    assert "smollm2-135m" in result.stdout
    assert "Apache-2.0" in result.stdout
    known = json.loads(CliRunner().invoke(command, ["--list", "--json"]).stdout)["known"]
    assert next(row for row in known if row["name"] == "smollm2-135m")["bytes"] == 98362432


def test_no_argument_is_a_usage_error() -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert "--list" in result.stderr
