"""`edgekit train`: what it prints, its exit codes, what it refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from edgekit.cli.main import main
from tests.train.conftest import RECIPE, text


def run(capsys: pytest.CaptureFixture[str], *arguments: str, verb: str = "train") -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([verb, *arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options for a recipe, a text and an output directory."""
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("steps = 200", "steps = 12"))
    (tmp_path / "a text.txt").write_text(text())
    return [
        "--config",
        str(tmp_path / "tiny.toml"),
        "--data",
        str(tmp_path / "a text.txt"),
        "-o",
        str(tmp_path / "out"),
    ]


def test_json_and_files(capsys: pytest.CaptureFixture[str], files: list[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "t6", *files, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["finished"]
    assert (result["attention"], result["step"], result["steps"]) == ("tpa", 12, 12)
    assert result["cache_numbers_per_token"] == 2 * 2 * (3 + 8)
    assert result["weight_bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    assert "12 of 12 steps to do, about" in err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "history.json"}


def test_stopping_after_minutes_and_resuming(
    capsys: pytest.CaptureFixture[str], files: list[str], tmp_path: Path
) -> None:
    """Each printed command works, whatever the paths hold."""
    code, out, _ = run(capsys, "t6", *files, "--attention", "gqa", "--minutes", "0")
    assert code == 0
    assert "steps          0 of 12" in out
    (line,) = (line for line in out.splitlines() if line.startswith("next: "))
    words = shlex.split(line)
    assert words[1:4] == ["edgekit", "train", "t6"]
    # The hint as it stands goes on, with the same text.
    code, out, err = run(capsys, *words[3:])
    assert code == 0, err
    assert "no state to resume" not in err
    assert "steps          12 of 12" in out
    (line,) = (line for line in out.splitlines() if line.startswith("next: "))
    bundle = tmp_path / "a bundle"
    code, _, err = run(
        capsys, *(str(bundle) if word == "BUNDLE" else word for word in shlex.split(line)[3:]), verb="export"
    )
    assert code == 0, err
    assert (bundle / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--config": "missing.toml"}, "does not exist"),
        ({"--data": "missing.txt"}, "does not exist"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], files: list[str], change: dict[str, str], message: str
) -> None:
    for option, value in change.items():
        files[files.index(option) + 1] = value
    code, out, err = run(capsys, "t6", *files)
    assert code in (1, 2)
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_model_that_the_recipe_gets_wrong(capsys: pytest.CaptureFixture[str], files: list[str]) -> None:
    path = Path(files[1])
    path.write_text(path.read_text().replace("key_rank = 1", "key_rank = 0"))
    code, _, err = run(capsys, "t6", *files)
    assert code == 1
    assert "key_rank must be at least 1" in err


def test_only_t6_is_trained(capsys: pytest.CaptureFixture[str], files: list[str]) -> None:
    code, _, err = run(capsys, "llama", *files)
    assert code == 2
    assert "'t6'" in err
