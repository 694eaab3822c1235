"""`edgekit bench`: a real bundle, measured in a process of its own; refused where its answers are not proven."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import Bundle, read_bundle, read_sidecar, write_sidecar
from edgekit.checkpoint import open_checkpoint
from edgekit.cli.bench import command
from edgekit.errors import EdgekitError
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.device.recorded import TEGRASTATS_ORIN_NANO
from tests.parity.tiny_models import export, write_checkpoint

SHORT = ["--prompt-tokens", "20,50", "--depth", "30", "--decode-tokens", "5", "--repetitions", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("made")
    return export(open_checkpoint(write_checkpoint(folder / "checkpoint", "llama")), folder / "bundle")


@pytest.fixture(autouse=True)
def _parity(bundle: Bundle) -> None:
    write_sidecar(bundle, "parity", {"passed": True, "failure": None})


def invoke(bundle: Bundle, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(bundle.path), *SHORT, *arguments])


@pytest.fixture(scope="module")
def report(bundle: Bundle) -> dict[str, Any]:
    """The report of one run."""
    write_sidecar(bundle, "parity", {"passed": True, "failure": None})
    result = invoke(bundle, "--json")
    assert result.exception is None, result.exception
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_every_quantity_with_its_samples(report: dict[str, Any]) -> None:
    assert [row["tokens"] for row in report["prompts"]] == [20, 50]
    (decode,) = report["decodes"]
    assert (decode["depth"], decode["tokens"]) == (30, 5)
    for values in (report["prompts"][0]["ttft_s"], report["prompts"][1]["tokens_per_s"], decode["tokens_per_s"]):
        assert len(values["samples"]) == 2
        assert 0 < values["min"] <= values["median"] <= max(values["samples"])
    assert report["parity"] is True
    assert report["settings"]["threads"] == 1
    assert "1 thread" in report["session"]
    for state in ("cold", "warm"):
        assert len(report["load"][state]["load_s"]["samples"]) == 2


def test_memory_is_the_runtimes_own(report: dict[str, Any]) -> None:
    """This process holds torch; the measured one holds onnxruntime and a model of 100 kB."""
    memory = report["memory"]
    assert 20e6 < memory["loaded"]["peak"] <= memory["measured"]["peak"] < 250e6


def test_the_bound_counts_weights_and_cache(report: dict[str, Any], bundle: Bundle) -> None:
    (decode,) = report["decodes"]
    weights = (bundle.path / "model.onnx.data").stat().st_size
    assert report["memory"]["weight_file_bytes"] == weights
    per_token = 2 * 3 * 2 * 16 * 4
    assert decode["roofline"]["bytes_per_token"] == weights + int(32.5 * per_token)
    bound = decode["roofline"]["bytes_per_token"] / report["read_bandwidth_bytes_per_s"]
    assert decode["roofline"]["bound_s_per_token"] == pytest.approx(bound)
    assert decode["roofline"]["attained"] == pytest.approx(bound / decode["s_per_token"]["median"])
    assert "memchr" in report["read_bandwidth_method"]


def test_it_is_kept_and_shown(report: dict[str, Any], bundle: Bundle) -> None:
    assert read_sidecar(bundle, "bench") == {key: value for key, value in report.items() if key != "bundle"} | {
        "bundle": str(bundle.path)
    }
    result = invoke(bundle)
    assert result.exception is None, result.exception
    rows = {line.split("  ")[0] for line in result.stdout.splitlines()}
    expected = {"prompt of 20", "prompt of 50, first token", "decode at depth 30", "load, cold", "load, warm"}
    assert expected <= rows
    assert "NOT CHECKED" not in result.stdout
    assert "memory: peak" in result.stdout
    kept = read_sidecar(bundle, "bench")
    assert kept is not None
    # Repetitions shorter than a tick of the processors' clock tell nothing.
    assert ("noise: other processes" in result.stdout) is (kept["others_cpu_share"] is not None)


def test_without_a_sensor_there_is_no_power_and_it_is_said(report: dict[str, Any], bundle: Bundle) -> None:
    if shutil.which("tegrastats"):
        pytest.skip("this machine has one")
    assert report["telemetry"]["missing"].startswith("no tegrastats on the PATH")
    assert report["telemetry"]["mean_power_w"] is None
    assert report["decodes"][0]["tokens_per_joule"] is None
    (line,) = (line for line in invoke(bundle).stdout.splitlines() if line.startswith("power"))
    assert line == f"power: not measured: {report['telemetry']['missing']}"


def test_with_a_sensor_power_and_tokens_per_joule_are_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tegrastats that always shows 4.968 W for the module."""
    program = tmp_path / "tegrastats"
    line = f"print({TEGRASTATS_ORIN_NANO!r}, flush=True)"
    program.write_text(f"#!{sys.executable}\nimport time\nwhile True:\n    {line}\n    time.sleep(0.02)\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    result = invoke(bundle, "--json", "--repetitions", "200", "--decode-tokens", "200")
    assert result.exception is None, result.exception
    found = json.loads(result.stdout)
    assert found["telemetry"]["source"] == "tegrastats, VDD_IN"
    assert found["telemetry"]["mean_power_w"] == pytest.approx(4.968)
    (decode,) = found["decodes"]
    seconds = decode["s_per_token"]["mean"]
    assert decode["tokens_per_joule"] == pytest.approx(1 / (4.968 * seconds), rel=0.15)


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        (None, "never compared"),
        ({"passed": False, "failure": "prefill, hidden.2: x"}, "it failed: prefill, hidden.2: x"),
    ],
)
def test_a_bundle_that_is_not_proven_is_refused(sidecar: dict[str, Any] | None, words: str, bundle: Bundle) -> None:
    (bundle.path / "parity.json").unlink()
    if sidecar is not None:
        write_sidecar(bundle, "parity", sidecar)
    result = invoke(bundle)
    assert isinstance(result.exception, EdgekitError)
    assert words in result.exception.fact
    assert "--unchecked" in result.exception.next_step
    assert result.stdout == ""
    unchecked = invoke(bundle, "--unchecked")
    assert unchecked.exception is None, unchecked.exception
    assert "NOT CHECKED" in unchecked.stdout.splitlines()[0]


def test_parity_of_another_export_does_not_count(bundle: Bundle) -> None:
    path = bundle.path / "parity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "manifest_sha256": "0" * 64}))
    result = invoke(bundle)
    assert isinstance(result.exception, EdgekitError)
    assert "never compared" in result.exception.fact


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--depth", "252"], "257 tokens are needed, the bundle holds 256"),
        (["--prompt-tokens", "300"], "300 tokens are needed"),
        (["--depth", "10,10"], "each depth is given once"),
    ],
)
def test_lengths_that_cannot_be_measured(arguments: list[str], words: str, bundle: Bundle) -> None:
    result = invoke(bundle, *arguments)
    assert isinstance(result.exception, EdgekitError)
    assert words in str(result.exception)


@pytest.mark.parametrize("value", ["", "0", "1,,2", "ten", "-5", "1.5"])
def test_lists_of_numbers(value: str, bundle: Bundle) -> None:
    assert invoke(bundle, "--depth", value).exit_code == 2


def test_the_worker_needs_the_runtime_only(bundle: Bundle) -> None:
    """Neither torch nor onnx nor a terminal library is loaded where memory is measured."""
    code = (
        "import sys, io, json\n"
        "from edgekit.benchmark.worker import Request, serve\n"
        f"serve(Request('measure', {str(bundle.path)!r}, 'cpu', 1, (8,), (4,), 2, 1), io.StringIO())\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ},
    )  # fmt: skip
    loaded = set(json.loads(done.stdout))
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "onnx", "transformers", "rich", "tokenizers", "edgekit.parity", "edgekit.models"}


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Has a chat template."""
    made = read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("talkative") / "bundle"))
    write_sidecar(made, "parity", {"passed": True, "failure": None})
    return made


@pytest.fixture(scope="module")
def drafted(talkative: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """With a draft model that is the model itself, so that every draft is right."""
    prompts = tmp_path_factory.mktemp("prompts") / "mine.jsonl"
    prompts.write_text('{"turns": ["one", "two"], "category": "a"}\n{"turns": ["three"]}\n')
    choices = [
        "--draft",
        str(talkative.path),
        "--draft-tokens",
        "3",
        "--prompts",
        str(prompts),
        "--answer-tokens",
        "20",
    ]
    result = invoke(talkative, "--json", *choices)
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)["draft"]
    return found


def test_drafts_are_timed_beside_plain_decoding(drafted: dict[str, Any]) -> None:
    assert [(group["group"], group["answers"]) for group in drafted["groups"]] == [("a", 2), ("mine", 1)]
    assert len(drafted["answers"]) == 3
    for answer in drafted["answers"]:
        assert answer["agreement"]["identical"]
        assert answer["agreement"]["tokens"] == answer["tokens"] > 1
        assert answer["speed_up"] == pytest.approx(answer["drafted_tokens_per_s"] / answer["plain_tokens_per_s"])
    group = drafted["groups"][0]
    source = group["draft"]["sources"]["model"]
    assert source["accepted"] == source["drafted"] > 0
    assert set(source["acceptance_by_position"]) == {1.0}
    assert group["draft"]["tokens_per_step"] > 3
    assert group["speed_up"]["quartiles"][1] == pytest.approx(group["speed_up"]["median"])


def test_blocks_are_timed_up_to_the_longest_draft(drafted: dict[str, Any]) -> None:
    assert [row["positions"] for row in drafted["blocks"]] == [1, 2, 3, 4]
    assert drafted["blocks"][0]["ratio"] == 1.0
    for row in drafted["blocks"]:
        assert row["depth"] == 256
        assert len(row["step_s"]["samples"]) == 8


def test_drafts_are_kept_and_shown(drafted: dict[str, Any], talkative: Bundle) -> None:
    kept = read_sidecar(talkative, "bench")
    assert kept is not None
    assert kept["draft"]["groups"] == drafted["groups"]
    assert kept["settings"]["draft"] == str(talkative.path)
    prompts = talkative.path.parent / "one.jsonl"
    prompts.write_text('{"turns": ["one two three one two three"]}\n')
    result = invoke(talkative, "--draft", "ngram", "--prompts", str(prompts), "--answer-tokens", "12")
    assert result.exception is None, result.exception
    assert "tokens a step" in result.stdout
    assert "a step of so many positions (and over one of 1): 1: " in result.stdout
    assert "differ from plain" not in result.stdout
    without = invoke(talkative, "--json")
    assert json.loads(without.stdout)["draft"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--answer-tokens", "9"], 2, "--answer-tokens has no effect without --draft"),
        (["--draft-tokens", "2"], 2, "--draft-tokens has no effect without --draft"),
        (["--draft", "off"], 2, "leave it out"),
        (["--draft", "eagle"], 2, "there is no directory eagle"),
        (["--draft", "ngram", "--prompts", "absent.jsonl"], 2, "absent.jsonl"),
    ],
)
def test_drafts_that_cannot_be_measured(talkative: Bundle, arguments: list[str], code: int, words: str) -> None:
    result = invoke(talkative, *arguments)
    assert result.exit_code == code
    assert words in result.stderr


def test_drafts_of_heads_that_are_not_there(talkative: Bundle) -> None:
    result = invoke(talkative, "--draft", "cp")
    assert isinstance(result.exception, EdgekitError)
    assert "edgekit draft train" in result.exception.next_step
