"""`edgekit parity`: the table, --json, the sidecar, exit code 3 and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import Bundle, read_bundle, read_sidecar
from edgekit.checkpoint import open_checkpoint
from edgekit.cli.parity import command
from edgekit.errors import BundleError, CheckpointError, EdgekitError, ParityFailed
from tests.parity.sabotage import edit_constant
from tests.parity.tiny_models import export, write_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and two bundles of it."""
    folder = tmp_path_factory.mktemp("made")
    checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", "gemma3_text"))
    export(checkpoint, folder / "fp32")
    export(checkpoint, folder / "int8", dtype="int8")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("hello world\n%%\ndef f(x): return 12345\n")
    return str(path)


def invoke(bundle: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(bundle), "--tokens", "8", "--threads", "1", *arguments])


def test_the_checkpoint_is_that_of_the_manifest(made: Path, prompts: str) -> None:
    result = invoke(made / "fp32", "--prompts", prompts)
    assert result.exception is None, result.exception
    assert "fp32, ort form, float32 activations" in result.stdout
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert {"embedding", "0", "1", "2", "3", "prefill", "chunked", "decode", "runtime"} <= rows.keys()
    assert rows["3"].endswith("ok")
    assert "8 to 8 of 8" in rows["greedy tokens in common"]
    assert result.stdout.endswith(": passed\n")
    sidecar = read_sidecar(read_bundle(made / "fp32"), "parity")
    assert sidecar is not None
    assert sidecar["passed"] is True
    assert sidecar["failure"] is None


def test_json_of_a_quantised_bundle(made: Path, prompts: str) -> None:
    result = invoke(made / "int8", "--prompts", prompts, "--json", "--against", str(made / "checkpoint"))
    assert result.exception is None, result.exception
    document = json.loads(result.stdout)
    assert (document["passed"], document["reference"], document["activations"]) == (True, "dequantized", "int8")
    assert {stage["mode"] for stage in document["stages"]} == {"prefill", "chunked", "decode", "runtime"}
    assert {weight["bits"] for weight in document["weights"]} == {8}
    table = invoke(made / "int8", "--prompts", prompts).stdout
    assert "8-bit " in table
    assert "PyTorch holds the weights it stores" in table


@pytest.fixture
def broken(made: Path, tmp_path: Path) -> Bundle:
    """A bundle with one wrong weight in layer 1."""

    def change(array: np.ndarray) -> None:
        array[0, 0] += 1

    shutil.copytree(made / "fp32", tmp_path / "broken", ignore=shutil.ignore_patterns("parity.json"))
    bundle = read_bundle(tmp_path / "broken")
    edit_constant(bundle, "model.layers.1.mlp.down_proj.weight_t", change)
    return bundle


def test_a_failure_is_shown_kept_and_raised(broken: Bundle, prompts: str) -> None:
    result = invoke(broken.path, "--prompts", prompts)
    assert isinstance(result.exception, ParityFailed)
    assert result.exception.exit_code == 3
    assert result.exception.fact.startswith("prefill, hidden.2: ")
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert rows["0"].endswith("ok")
    assert rows["1"].endswith("FAILED")
    assert "passed" not in result.stdout
    sidecar = read_sidecar(broken, "parity")
    assert sidecar is not None
    assert sidecar["passed"] is False
    assert sidecar["failure"] == result.exception.fact


def test_the_exit_code_is_3(broken: Bundle, prompts: str) -> None:
    arguments = [str(broken.path), "--prompts", prompts, "--tokens", "4", "--threads", "1", "--json"]
    code = "import sys; from edgekit.cli.main import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "parity", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["passed"] is False
    assert "  found: prefill, hidden.2: " in done.stderr
    assert "Traceback" not in done.stderr


def _raised(result: Result) -> EdgekitError:
    assert isinstance(result.exception, EdgekitError), result.exception
    assert result.exception.next_step
    return result.exception


def with_provenance(made: Path, tmp_path: Path, provenance: object) -> Path:
    shutil.copytree(made / "fp32", tmp_path / "bundle", ignore=shutil.ignore_patterns("parity.json"))
    path = tmp_path / "bundle" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "provenance": provenance}))
    return tmp_path / "bundle"


@pytest.mark.parametrize("provenance", [None, {}, {"checkpoint": "x"}, {"checkpoint": {"path": "x"}}])
def test_a_bundle_that_does_not_name_its_checkpoint(provenance: object, made: Path, tmp_path: Path) -> None:
    error = _raised(invoke(with_provenance(made, tmp_path, provenance)))
    assert isinstance(error, BundleError)
    assert "--against CHECKPOINT" in error.next_step
    assert not (tmp_path / "bundle" / "parity.json").exists()


def test_a_checkpoint_that_is_gone(made: Path, tmp_path: Path) -> None:
    gone = {"checkpoint": {"location": str(tmp_path / "gone"), "files": []}}
    error = _raised(invoke(with_provenance(made, tmp_path, gone)))
    assert isinstance(error, CheckpointError)
    assert str(tmp_path / "gone") in error.fact
    assert "--against CHECKPOINT" in error.next_step


def test_a_checkpoint_that_has_changed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "checkpoint", tmp_path / "checkpoint")
    files = open_checkpoint(tmp_path / "checkpoint").files()
    config = tmp_path / "checkpoint" / "config.json"
    config.write_text(config.read_text() + "\n")
    changed = {"checkpoint": {"location": str(tmp_path / "checkpoint"), "files": files}}
    error = _raised(invoke(with_provenance(made, tmp_path, changed)))
    assert "config.json" in error.fact
    # What is asked for explicitly is compared all the same.
    assert invoke(tmp_path / "bundle", "--against", str(tmp_path / "checkpoint")).exception is None


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert _raised(invoke(tmp_path)).exit_code == 5
    assert CliRunner().invoke(command, [str(tmp_path), "--tokens", "0"]).exit_code == 2


def test_without_torch_it_says_what_to_install(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    error = _raised(invoke(made / "fp32"))
    assert error.fact == "torch cannot be imported here"
    assert "edgekit[export]" in error.next_step
