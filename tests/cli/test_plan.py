"""`edgekit plan` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.plan import command
from edgekit.errors import CheckpointError, DeviceError, DoesNotFit, EdgekitError

MODELS = Path(__file__).parents[1] / "plan" / "models"
LLAMA, SMOLLM2 = str(MODELS / "llama-2-7b.json"), str(MODELS / "smollm2-135m.json")
NANO = "jetson-orin-nano-8gb"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_a_model_that_fits() -> None:
    result = run(SMOLLM2, "--device", NANO)
    assert result.exit_code == 0, result.output
    assert "FITS" in result.output
    assert "134,515,008 parameters" in result.output
    for word in ("weights", "cache", "activations", "CUDA context", "tokens/s", "limited by", "largest context"):
        assert word in result.output


def test_a_model_that_does_not_fit_is_planned_in_full_and_refused() -> None:
    result = run(LLAMA, "--device", NANO)
    assert isinstance(result.exception, DoesNotFit)
    assert result.exception.exit_code == 4
    # 13.48 GB of weights: two bytes for each of 6,738,415,616 parameters, and rotary tables of 4,096 positions.
    assert "13.48 GB weights" in result.exception.fact
    assert "DOES NOT FIT" in result.output
    assert "What would make it fit" in result.output
    assert "--dtype int4" in result.output
    assert "Notes" in result.output


def test_what_is_suggested_fits(tmp_path: Path) -> None:
    facts = json.loads(run(LLAMA, "--device", NANO, "--json").output)
    exports = [entry["command"] for entry in facts["suggestions"] if "edgekit export" in (entry["command"] or "")]
    assert exports
    for line in exports:
        words = line.split()
        dtype, context = words[words.index("--dtype") + 1], words[words.index("--max-context") + 1]
        assert run(LLAMA, "--device", NANO, "--dtype", dtype, "--context", context).exit_code == 0


def test_json() -> None:
    facts: dict[str, Any] = json.loads(run(SMOLLM2, "--device", NANO, "--context", "1000", "--json").output)
    assert facts["device"]["name"] == NANO
    # 23,040 bytes a token in half precision, written in place.
    assert facts["memory"]["items"]["cache"]["value"] == 1000 * 23_040
    assert facts["verdict"]["fits"] is True


def test_devices_side_by_side() -> None:
    result = run(LLAMA, "--compare", f"{NANO},h100-sxm", "--dtype", "fp16")
    assert result.exit_code == 0, "it fits one of them"
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [NANO, "h100-sxm"]
    assert "does not fit" in lines[2]
    assert "fits" in lines[3]
    assert len(json.loads(run(LLAMA, "--compare", f"{NANO},h100-sxm", "--json").output)) == 2


def test_a_page(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    result = run(SMOLLM2, "--compare", f"{NANO},h100-sxm", "--html", str(page))
    assert result.exit_code == 0
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    # Two plots of both devices, one of each device, each for wide and narrow windows.
    assert text.count("<svg") == 2 * (2 + 2)
    assert run(SMOLLM2, "--device", NANO, "--html", str(page)).exit_code == 0, "its own page is replaced"


@pytest.mark.parametrize("place", ["thesis.txt", "none/plan.html"])
def test_a_page_takes_the_place_of_nothing_else(tmp_path: Path, place: str) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = run(SMOLLM2, "--device", NANO, "--html", str(tmp_path / place))
    assert isinstance(result.exception, EdgekitError)
    assert result.stdout == ""
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_a_comparison_of_nothing(names: str) -> None:
    result = run(SMOLLM2, "--compare", names)
    assert result.exit_code == 2
    assert "--compare needs names of devices" in result.stderr


def test_a_prompt_that_the_context_cannot_hold() -> None:
    result = run(SMOLLM2, "--device", NANO, "--context", "1000", "--prompt", "1001")
    assert isinstance(result.exception, DeviceError)
    assert "--prompt is 1,001, the context 1,000" in result.exception.fact


def test_converted_attention() -> None:
    facts = json.loads(
        run(
            SMOLLM2, "--device", NANO, "--attention", "tpa", "--cache-ratio", "0.5", "--context", "1000", "--json"
        ).output
    )
    # Half of 11,520 numbers a token, in place.
    assert facts["memory"]["items"]["cache"]["value"] == 1000 * 11_520 // 2 * 2


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("--device", "jetson-orin-nano"), DeviceError, NANO),
        (("--device", NANO, "--dtype", "fp8"), DeviceError, "fp32, fp16, int8, int4"),
        (("--device", NANO, "--dtype", "fp17"), DeviceError, "fp16"),
        (("--device", NANO, "--power-mode", "400W"), DeviceError, "MAXN_SUPER"),
    ],
)
def test_refusals(arguments: tuple[str, ...], error: type[Exception], named: str) -> None:
    result = run(SMOLLM2, *arguments)
    assert isinstance(result.exception, error)
    assert named in str(result.exception)
    assert result.output == ""


def test_a_model_that_is_not_there() -> None:
    result = run("smollm2-135n", "--device", NANO)
    assert isinstance(result.exception, CheckpointError)
    assert "smollm2-135m" in str(result.exception)


def test_usage() -> None:
    assert run(SMOLLM2).exit_code == 2
    assert run(SMOLLM2, "--device", NANO, "--compare", NANO).exit_code == 2
    assert run(SMOLLM2, "--compare", NANO, "--power-mode", "15W").exit_code == 2


def test_a_directory_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(Path(SMOLLM2).read_text())
    assert run(str(tmp_path), "--device", NANO).exit_code == 0


def test_a_repository_gives_its_configuration_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(repository: str, name: str, **options: Any) -> str:
        asked.append((repository, name))
        return SMOLLM2

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert run("somebody/something", "--device", NANO).exit_code == 0
    assert asked == [("somebody/something", "config.json")]

    def refuse(repository: str, name: str, **options: Any) -> str:
        raise OSError("no such repository")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    result = run("somebody/something", "--device", NANO)
    assert isinstance(result.exception, CheckpointError)
    assert "no such repository" in str(result.exception)


def test_it_answers_at_once_without_torch() -> None:
    """Under a second with the interpreter, and nothing heavy is imported. Processor time: the machine is shared."""
    code = (
        "import sys; from edgekit.cli.main import main\n"
        "try: main(['plan', sys.argv[1], '--device', sys.argv[2]])\n"
        "finally: print(sorted({'torch', 'onnx', 'tensorrt', 'tensorrt_rtx', 'onnxruntime'} & set(sys.modules)), "
        "__import__('time').process_time(), file=sys.stderr)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, SMOLLM2, NANO], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 30
    loaded, seconds = done.stderr.strip().rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 1


@pytest.mark.model
def test_the_known_model_is_planned_from_its_file() -> None:
    named = json.loads(run("smollm2-135m", "--device", NANO, "--json").output)
    written = json.loads(run(SMOLLM2, "--device", NANO, "--json").output)
    assert named["model"]["parameters"] == written["model"]["parameters"] == 134_515_008
    assert named["memory"] == written["memory"]


def test_what_drafting_wins_on_each_device() -> None:
    result = run(SMOLLM2, "--device", NANO, "--draft-tokens", "3", "--acceptance", "0.6")
    assert result.exit_code == 0
    # 1 + 0.6 + 0.36 + 0.216
    assert "2.18 tokens a step at 60% 60% 60% accepted (as given)" in result.output
    assert "times as fast" in result.output
    assert "upper bound" in result.output
    compared = run(SMOLLM2, "--compare", f"{NANO},rtx-4090", "--acceptance", "0.6")
    head, *rows = [line for line in compared.output.splitlines() if "fits" in line or "drafted" in line]
    assert head.rstrip().endswith("speed-up")
    assert all(row.rstrip().endswith("with 4") for row in rows)
    assert len(rows) == 2
    assert "drafted" not in run(SMOLLM2, "--compare", f"{NANO},rtx-4090").output
    facts: dict[str, Any] = json.loads(run(SMOLLM2, "--device", NANO, "--draft-tokens", "2", "--json").output)
    assert facts["drafting"]["proposed"] == 2
    assert facts["drafting"]["tokens_per_step"] == pytest.approx(1 + 0.8 + 0.64)


@pytest.mark.parametrize("arguments", [["--draft-tokens", "0"], ["--acceptance", "1.5"]])
def test_drafts_that_mean_nothing(arguments: list[str]) -> None:
    assert run(SMOLLM2, "--device", NANO, *arguments).exit_code == 2


def test_drafts_of_several_sequences_are_refused() -> None:
    result = run(SMOLLM2, "--device", NANO, "--batch", "2", "--draft-tokens", "2")
    assert isinstance(result.exception, DeviceError)
    assert "--batch is 2" in result.exception.fact
