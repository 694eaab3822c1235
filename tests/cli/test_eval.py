"""`edgekit eval`: what it prints and keeps, and that a killed measurement goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import read_bundle, read_sidecar
from edgekit.checkpoint import open_checkpoint
from edgekit.cli.eval import command
from edgekit.errors import EdgekitError
from tests.parity.tiny_models import export, write_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, two bundles of it, and a text."""
    folder = tmp_path_factory.mktemp("made")
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", "llama"))
    export(checkpoint, folder / "fp32")
    export(checkpoint, folder / "int8", dtype="int8")
    (folder / "text.txt").write_text("hello world, naïve café 12345\n" * 20)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def invoke(made: Path, *arguments: str, bundle: str = "int8") -> Result:
    fixed = [str(made / bundle), "--text", str(made / "text.txt"), "--threads", "1"]
    return CliRunner().invoke(command, [*fixed, *arguments])


def lines(result: Result) -> dict[str, str]:
    assert result.exception is None, result.exception
    return dict(line.split("  ", 1) for line in result.stdout.splitlines())


def test_what_was_measured_is_said(made: Path) -> None:
    shown = lines(invoke(made, "--context", "64"))
    assert shown["text"].strip() == "text.txt, 640 bytes, 500 tokens"
    assert "8 of 64 tokens, stride 64 (no overlap), no token put before" in shown["windows"]
    assert shown["predicted"].split()[0] == "492"
    assert "±" in shown["perplexity"]
    sidecar = read_sidecar(read_bundle(made / "int8"), "eval")
    assert sidecar is not None
    assert sidecar["perplexity"] == pytest.approx(float(shown["perplexity"].split()[0]), abs=1e-4)
    assert sidecar["reference"] is None


def test_a_checkpoint_for_comparison_is_measured_once(made: Path) -> None:
    arguments = ["--context", "64", "--stride", "50", "--against", str(made / "checkpoint"), "--json"]
    first = json.loads(invoke(made, *arguments).stdout)
    assert first["reference"]["name"].endswith("PyTorch float32")
    assert first["reference"]["tokens"] == first["tokens"] == 499
    assert first["reference"]["ratio"] == pytest.approx(first["perplexity"] / first["reference"]["perplexity"])
    again = invoke(made, *arguments)
    assert json.loads(again.stdout) == first
    assert again.stderr.count("were measured before") == 2
    # A float32 bundle is nearer to it than one of 8 bits.
    exact = json.loads(invoke(made, *arguments, bundle="fp32").stdout)
    assert abs(exact["reference"]["ratio"] - 1) < 1e-5 < abs(first["reference"]["ratio"] - 1)


def test_a_bundle_for_comparison(made: Path) -> None:
    shown = lines(invoke(made, "--context", "64", "--baseline", str(made / "fp32"), "--max-windows", "3"))
    assert shown["reference"].strip() == str(made / "fp32")
    assert "%" in shown["change"]
    assert shown["windows"].strip().startswith("3 of 64")


def test_a_bundle_with_another_tokenizer_is_no_baseline(made: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "other", "llama")
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    export(open_checkpoint(checkpoint), tmp_path / "bundle")
    result = invoke(made, "--context", "64", "--baseline", str(tmp_path / "bundle"))
    assert isinstance(result.exception, EdgekitError)
    assert "makes others" in result.exception.fact


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", "300"], "holds 256"),
        (["--context", "64", "--stride", "65"], "between 1 and 64"),
        (["--context", "64", "--backend", "cuda"], "CUDAExecutionProvider"),
    ],
)
def test_refusals(arguments: list[str], words: str, made: Path) -> None:
    result = invoke(made, *arguments)
    assert isinstance(result.exception, EdgekitError), result.exception
    assert words in str(result.exception)


def test_usage(made: Path, tmp_path: Path) -> None:
    assert invoke(made, "--against", "x", "--baseline", "y").exit_code == 2
    assert CliRunner().invoke(command, [str(made / "int8"), "--text", str(tmp_path / "none")]).exit_code == 2


def test_a_short_text(made: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a")
    result = CliRunner().invoke(command, [str(made / "int8"), "--text", str(tmp_path / "short.txt")])
    assert isinstance(result.exception, EdgekitError)
    assert "short.txt holds 1" in result.exception.fact


# Slows every window down, so that the process can be killed between two of them.
SLOW = """
import sys, time
import edgekit.evaluate.perplexity as perplexity, edgekit.evaluate.progress_file as progress_file
progress_file._SECONDS_BETWEEN_WRITES = 0.0
measured = perplexity.window_nats
perplexity.window_nats = lambda *arguments: (time.sleep(0.2), measured(*arguments))[1]
from edgekit.cli.main import main
main(sys.argv[1:])
"""


def test_a_killed_measurement_goes_on_to_the_same_bits(made: Path, tmp_path: Path) -> None:
    arguments = [str(made / "int8"), "--text", str(made / "text.txt"), "--threads", "1", "--context", "32", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "eval", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        state = tmp_path / "cache" / "eval"
        deadline = time.monotonic() + 120
        while not (list(state.glob("*.json")) if state.is_dir() else []):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (file,) = state.glob("*.json")
    done = len(json.loads(file.read_text())["windows"])
    assert 0 < done < 16
    resumed = invoke(made, "--context", "32", "--json")
    assert f"{done} of 16 windows were measured before" in resumed.stderr
    restarted = invoke(made, "--context", "32", "--json", "--restart")
    assert "measured before" not in restarted.stderr
    assert json.loads(resumed.stdout) == json.loads(restarted.stdout)
    assert os.environ["EDGEKIT_CACHE"] == str(tmp_path / "cache")
