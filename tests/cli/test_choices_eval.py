"""`edgekit eval --choices`: bundles and checkpoints, and what has no effect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.checkpoint import open_checkpoint
from edgekit.cli.eval import command
from edgekit.errors import BundleError, CheckpointError
from tests.parity.tiny_models import export, write_checkpoint

ROWS = [
    {"question": "Why is the lamp lit?", "choices": ["hello world", "it is dark"], "answer": 1},
    {"question": "Who came?", "choices": ["the boat", "nobody", "all"], "answer": "nobody"},
    {"question": "And then?", "choices": ["yes", "no"], "answer": 0},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a bundle of it, and questions."""
    folder = tmp_path_factory.mktemp("made")
    export(open_checkpoint(write_checkpoint(folder / "checkpoint", "llama")), folder / "fp32")
    (folder / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def invoke(made: Path, subject: str, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(made / subject), "--choices", str(made / "q.jsonl"), *arguments])


def test_a_bundle_against_its_checkpoint(made: Path) -> None:
    result = invoke(made, "fp32", "--against", str(made / "checkpoint"), "--json", "--threads", "1")
    assert result.exception is None, result.exception
    found = json.loads(result.stdout)
    assert found["questions"] == 3
    assert found["chance"] == pytest.approx((0.5 + 1 / 3 + 0.5) / 3)
    assert found["reference"]["accuracy"] == found["accuracy"]
    assert found["reference"]["difference"]["accuracy_error"] == 0
    alone = json.loads(invoke(made, "checkpoint", "--json").stdout)
    assert alone["accuracy"] == found["accuracy"]
    assert alone["subject"].endswith("PyTorch float32")


def test_a_part_is_said_to_be_one(made: Path) -> None:
    result = invoke(made, "fp32", "--limit", "2", "--baseline", str(made / "fp32"))
    assert result.exception is None, result.exception
    assert result.stdout.splitlines()[0].split("  ")[-1].strip() == "q.jsonl, the first 2 of 3"
    assert "+0.0 ± 0.0 percentage points" in result.stdout
    assert not (made / "fp32" / "eval.json").exists()


@pytest.mark.parametrize("extra", [["--stride", "4"], ["--context", "64"], ["--max-windows", "2"]])
def test_options_of_texts_have_no_effect(extra: list[str], made: Path) -> None:
    result = invoke(made, "fp32", *extra)
    assert result.exit_code == 2
    assert extra[0] in result.output


def test_the_limit_is_one_of_questions(made: Path) -> None:
    result = CliRunner().invoke(command, [str(made / "fp32"), "--text", str(made / "q.jsonl"), "--limit", "2"])
    assert result.exit_code == 2
    assert "--limit has no effect without --choices" in result.output


def test_what_is_neither_a_bundle_nor_a_checkpoint(made: Path) -> None:
    assert isinstance(invoke(made, "nothing").exception, CheckpointError)


def test_an_encoder_answers_nothing(tmp_path: Path, made: Path) -> None:
    from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
    from edgekit.progress import SilentProgress
    from tests.tiny_encoder import write_encoder

    checkpoint = open_checkpoint(write_encoder(tmp_path / "encoder"))
    bundle_from_checkpoint(checkpoint, tmp_path / "bundle", ExportOptions(dtype="fp32"), progress=SilentProgress())
    result = CliRunner().invoke(command, [str(tmp_path / "bundle"), "--choices", str(made / "q.jsonl")])
    assert isinstance(result.exception, BundleError)
    assert "asking questions needs a decoder" in result.exception.rule
