"""`edgekit make`: what it prints, and how it ends. What the steps do is tested in tests/recipe/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import read_bundle
from edgekit.cli import make as verb
from edgekit.errors import BundleError, ParityFailed, RecipeError
from tests.recipe.workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A recipe and its checkpoint in the current directory; exporting and comparing are stand-ins."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    made = Workshop(tmp_path)
    monkeypatch.setattr(verb, "_export", made._export)
    monkeypatch.setattr(verb, "_parity", made._parity)
    return made


def _make(*arguments: str) -> Result:
    return CliRunner().invoke(verb.command, ["tiny.cpu.toml", *arguments])


def _lines(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.exception
    return [line.split() for line in result.stdout.splitlines()]


def test_the_steps_are_told_on_stdout_and_progress_on_stderr(workshop: Workshop) -> None:
    result = _make()
    lines = _lines(result)
    assert [line[:2] for line in lines[:5]] == [
        ["pull", "skipped"],
        ["export", "done"],
        ["fingerprint", "skipped"],
        ["parity", "done"],
        ["bundle", "done"],
    ]
    assert lines[5] == ["next:", "edgekit", "chat", "bundles/tiny.cpu"]
    assert "writing ... (1 tensor)" in result.stderr
    assert "writing" not in result.stdout


def test_the_default_place_is_named_after_the_recipe(workshop: Workshop) -> None:
    _make()
    assert read_bundle(Path("bundles/tiny.cpu")).manifest.dtype == "int4"


def test_another_place(workshop: Workshop) -> None:
    assert _make("-o", "elsewhere/").exit_code == 0
    read_bundle(Path("elsewhere"))
    assert not Path("bundles").exists()


def test_the_second_run_skips_everything(workshop: Workshop) -> None:
    _make()
    assert [line[1] for line in _lines(_make())[:5]] == ["skipped"] * 5


def test_a_dry_run_only_tells(workshop: Workshop) -> None:
    result = _make("--dry-run")
    assert [line[:3] for line in _lines(result) if "would" in line] == [
        ["export", "would", "run"],
        ["parity", "would", "run"],
        ["bundle", "would", "run"],
    ]
    assert workshop.calls == []
    assert not Path("bundles").exists()


def test_json(workshop: Workshop) -> None:
    document = json.loads(_make("--json").stdout)
    assert document["bundle"] == "bundles/tiny.cpu"
    assert [step["name"] for step in document["steps"]] == ["pull", "export", "fingerprint", "parity", "bundle"]
    assert document["parity"] == {"passed": True, "failure": None}
    planned = json.loads(_make("--json", "--dry-run").stdout)
    assert {step["status"] for step in planned["steps"]} == {"skipped"}


def test_a_failed_comparison_is_an_error_of_its_own(workshop: Workshop) -> None:
    workshop.verdict = False
    result = _make()
    assert isinstance(result.exception, ParityFailed)
    assert result.exception.exit_code == 3
    assert "failed" not in result.stdout


def test_a_mistake_in_the_recipe(workshop: Workshop) -> None:
    workshop.recipe.path.write_text(workshop.recipe.path.read_text().replace("block_size", "block_sise"))
    result = _make()
    assert isinstance(result.exception, RecipeError)
    assert "block_size" in result.exception.next_step


def test_a_place_that_is_taken(workshop: Workshop) -> None:
    Path("taken").write_text("mine")
    result = _make("-o", "taken")
    assert isinstance(result.exception, BundleError)
    assert Path("taken").read_text() == "mine"


def test_unknown_step(workshop: Workshop) -> None:
    result = _make("--force", "chat")
    assert result.exit_code == 2
    assert "export" in result.stderr
