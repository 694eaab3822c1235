"""`edgekit export`: real bundles of a tiny model, what is told before and after, and what is left when it stops."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import edgekit
from edgekit.bundle import read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.cli.export import command
from edgekit.cli.export_report import require_space, size
from edgekit.draft.head_file import write_heads
from edgekit.errors import BundleError, CheckpointError, DoesNotFit, ExportError
from edgekit.export.options import ExportOptions
from tests.export.tiny_heads import tiny_heads
from tests.parity.tiny_models import write_checkpoint

EDGEKIT = [sys.executable, "-m", "edgekit.cli.main"]
README = Path(edgekit.__file__).parents[1] / "exports" / "README.md"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("export") / "weights", "llama")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One int8 export, which several tests look at."""
    path = tmp_path_factory.mktemp("exported") / "bundle"
    return path, _export(checkpoint, path, "--dtype", "int8", "--name", "Tiny", "--max-context", "100")


def _export(checkpoint: Path | str, destination: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(checkpoint), "-o", str(destination), *arguments])


def _table(result: Result) -> dict[str, str]:
    """First column -> second column of the summary; of rows with one label the first."""
    rows = [re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines()]
    return {row[0]: row[1] for row in reversed(rows) if len(row) == 2}


def test_the_bundle_is_as_the_options_say(exported: tuple[Path, Result]) -> None:
    path, result = exported
    assert result.exit_code == 0, result.exception
    manifest = read_bundle(path, verify="full").manifest
    assert (manifest.dtype, manifest.form, manifest.model.name) == ("int8", "ort", "Tiny")
    assert manifest.cache.capacity_limit == 100


def test_the_summary_is_that_of_the_manifest(exported: tuple[Path, Result]) -> None:
    path, result = exported
    manifest = read_bundle(path).manifest.raw
    table = _table(result)
    for name, outcome in manifest["rules"].items():
        assert table[f"rule {name}"].startswith(f"fired {outcome['fired']}")
        assert all(refusal["reason"] in table[f"rule {name}"] for refusal in outcome["refused"])
    assert table["weights"].startswith(f"{sum(manifest['quantization']['origin'].values())} matrices rounded to 8 bits")
    for file in manifest["files"]:
        assert table[f"file {file['name']}"] == size(file["bytes"])
    assert "up to 100 tokens" in table["context"]
    assert "kept at 8 bits" not in table
    assert result.stdout.splitlines()[-2:] == [
        f"{path}: Tiny, int8, ort form",
        f"next: edgekit parity {path}, or edgekit chat {path}",
    ]


def test_progress_and_the_estimate_go_to_stderr(exported: tuple[Path, Result]) -> None:
    _, result = exported
    first = result.stderr.splitlines()[0]
    assert re.fullmatch(r"estimate: [\d.]+ MB on disk \(.* free\), [\d.]+ MB of memory of .*, about \d+ s", first)
    assert re.search(r"^trace: done in ", result.stderr, re.MULTILINE)


def test_a_dry_run_prints_the_estimate_and_stops(checkpoint: Path, tmp_path: Path) -> None:
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32", "--dry-run")
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("estimate: ")
    document = json.loads(_export(checkpoint, tmp_path / "bundle", "--dtype", "fp32", "--dry-run", "--json").stdout)
    # 3 layers of 64 x 64 and 64 x 96 matrices and an embedding of 266 rows, in 4 bytes each, and room for the rest.
    weights = 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96 + 2 * 64) + 64 + 266 * 64
    assert 4 * weights <= document["estimate"]["bytes_on_disk"] <= 4 * weights + 10_000_000
    assert document["estimate"]["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_json(checkpoint: Path, tmp_path: Path) -> None:
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32", "--form", "portable", "--json")
    document = json.loads(result.stdout)
    assert document["bundle"] == str(tmp_path / "bundle")
    assert (document["form"], document["quantization"]) == ("portable", None)
    assert {file["name"] for file in document["files"]} >= {"model.onnx", "config.json", "tokenizer.json"}


def test_an_earlier_bundle_is_replaced_only_when_asked(exported: tuple[Path, Result], checkpoint: Path) -> None:
    path, _ = exported
    before = read_bundle(path).manifest_sha256
    result = _export(checkpoint, path, "--dtype", "fp32")
    assert isinstance(result.exception, BundleError)
    assert "--overwrite" in result.exception.next_step
    assert "trace" not in result.stderr
    assert read_bundle(path, verify="full").manifest_sha256 == before


def test_a_full_disk_is_found_before_the_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32")
    assert isinstance(result.exception, DoesNotFit)
    assert result.exception.exit_code == 4
    assert "1.0 kB are free" in result.exception.fact
    assert "trace" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_space_of_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    require_space(1, tmp_path / "not" / "there")
    with pytest.raises(DoesNotFit):
        require_space(1 << 70, tmp_path / "not" / "there")


def test_a_disk_that_fills_up_leaves_nothing(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx.save", full)
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32")
    assert isinstance(result.exception, DoesNotFit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--dtype", "fp32", "--block-size", "32"], "--block-size has no effect with --dtype fp32"),
        (["--dtype", "fp16", "--no-carry-over"], "--carry-over has no effect with --dtype fp16"),
        (["--dtype", "int8", "--keep-8bit", "lm_head"], "--keep-8bit has no effect with --dtype int8"),
        (["--dtype", "int8", "--allowed-cost", "0"], "--allowed-cost has no effect with --dtype int8"),
        (["--dtype", "int5"], "'int5' is not one of 'fp32', 'fp16', 'int8', 'int4'"),
        (["--dtype", "int4", "--block-size", "48"], "'48' is not one of"),
        (["--dtype", "int4", "--form", "onnx"], "'onnx' is not one of 'ort', 'portable', 'tensorrt', 'jetpack6'"),
        ([], "Missing option '--dtype'"),
    ],
)
def test_options_that_do_not_fit_together(checkpoint: Path, tmp_path: Path, arguments: list[str], fault: str) -> None:
    result = _export(checkpoint, tmp_path / "bundle", *arguments)
    assert result.exit_code == 2
    assert fault in " ".join(result.stderr.split())


def test_a_context_that_the_model_has_not(checkpoint: Path, tmp_path: Path) -> None:
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32", "--max-context", "257")
    assert isinstance(result.exception, ExportError)
    assert "256" in result.exception.fact
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    result = _export(tmp_path / "none.gguf", tmp_path / "bundle", "--dtype", "fp32")
    assert isinstance(result.exception, CheckpointError)


def test_offline_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    result = _export("smollm2-135m", tmp_path / "bundle", "--dtype", "fp32", "--offline")
    assert isinstance(result.exception, CheckpointError)
    assert "edgekit pull smollm2-135m" in result.exception.next_step


def test_the_stated_defaults_are_those_of_an_export() -> None:
    """Help and the recipes' README state them in words."""
    defaults = {item.name: item.default for item in fields(ExportOptions)} | {"block_size": ExportOptions("int4").block}
    text = " ".join(CliRunner().invoke(command, ["--help"]).stdout.split())
    for name in ("block_size", "allowed_cost", "calibration_sequences", "calibration_length"):
        stated = re.search(rf"--{name.replace('_', '-')} .*?\[default: ([\d.]+)[;\]]", text)
        assert stated is not None, name
        assert float(stated[1]) == defaults[name], name
        row = re.search(rf"^\| `\[quantization\] {name}` \| [^|]*?([\d.]+) \|", README.read_text(), re.MULTILINE)
        assert row is not None, name
        assert float(row[1]) == defaults[name], name


def test_the_stated_patterns_are_those_of_an_export() -> None:
    default = ExportOptions("int4").keep_8bit
    text = " ".join(CliRunner().invoke(command, ["--help"]).stdout.split())
    stated = re.search(r"--keep-8bit .*?\[default: ([^\]]+)\]", text)
    assert stated is not None
    assert tuple(stated[1].split(", ")) == default
    row = re.search(r"^\| `\[quantization\] keep_8bit` \| [^|]*?`(\[.*?\])` \|", README.read_text(), re.MULTILINE)
    assert row is not None
    assert tuple(json.loads(row[1])) == default


def test_draft_heads_go_into_the_bundle_and_are_told(checkpoint: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(checkpoint)
    heads = tiny_heads(opened.config["vocab_size"], record={"model": {"files": [{"sha256": "0" * 64}]}})
    write_heads(tmp_path / "heads.safetensors", heads)
    arguments = ["--dtype", "int8", "--draft", str(tmp_path / "heads.safetensors"), "--draft-components", "3"]
    result = _export(checkpoint, tmp_path / "bundle", *arguments)
    assert result.exit_code == 0, result.exception
    draft = read_bundle(tmp_path / "bundle", verify="full").manifest.draft
    assert draft is not None
    assert (draft.tokens, draft.rank, draft.components) == (3, 4, 3)
    table = _table(result)
    assert table["draft heads"] == "3 tokens out of 90, 3 of 4 components"
    assert table["draft rule quantize_linear"] == "fired 12, refused 1: mixture.weight is not quantised"
    assert "heads.safetensors was trained on another checkpoint of the same sizes" in result.stderr


@pytest.mark.parametrize("option", ["--draft-components", "--draft-tokens"])
def test_what_is_of_heads_is_refused_without_any(option: str, checkpoint: Path, tmp_path: Path) -> None:
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32", option, "2")
    assert result.exit_code == 2
    assert f"{option} has no effect without --draft" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_heads_of_another_model_leave_nothing(checkpoint: Path, tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.safetensors", tiny_heads(200, hidden_size=32))
    result = _export(checkpoint, tmp_path / "bundle", "--dtype", "fp32", "--draft", str(tmp_path / "heads.safetensors"))
    assert isinstance(result.exception, ExportError)
    assert "hidden size of 32" in result.exception.fact
    assert not (tmp_path / "bundle").exists()


def test_every_option_of_an_export_can_be_chosen() -> None:
    options = {parameter.name for parameter in command.params}
    assert {item.name for item in fields(ExportOptions)} <= options


#: Runs the verb with a pause where the weights are written, and says when it is there.
PAUSED = """
import sys, time
from edgekit.export import records as module
write = module.write_model
def slow(graph, folder, *arguments, **options):
    write(graph, folder, *arguments, **options)
    print("written", flush=True)
    time.sleep(60)
module.write_model = slow
from edgekit.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped_leaves_no_bundle(checkpoint: Path, tmp_path: Path, stop: signal.Signals) -> None:
    destination = tmp_path / "bundle"
    arguments = ["export", str(checkpoint), "-o", str(destination), "--dtype", "fp32"]
    # stderr goes to a file: a pipe that nobody reads could fill up.
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PAUSED, *arguments], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, stop)
        start = time.monotonic()
        code = process.wait(timeout=30)
    assert time.monotonic() - start < 10
    process.stdout.close()
    (tmp_path / "log").unlink()
    assert not destination.exists()
    with pytest.raises(BundleError):
        read_bundle(destination)
    left = list(tmp_path.iterdir())
    if stop == signal.SIGINT:
        assert code == 130
        assert left == []
    else:
        for path in left:  # what a killed writer leaves is not taken for a bundle
            with pytest.raises(BundleError):
                read_bundle(path)
        assert CliRunner().invoke(command, [*arguments[1:]]).exit_code == 0
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
        read_bundle(destination, verify="full")
