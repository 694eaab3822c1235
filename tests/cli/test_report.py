"""`edgekit report`: with nothing measured, with everything measured by --run, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from edgekit.benchmark import run as benchmark_run
from edgekit.bundle import Bundle, check_files, find_measurement, read_bundle, read_sidecar, write_sidecar
from edgekit.checkpoint import open_checkpoint
from edgekit.cli import report_run
from edgekit.cli.report import command
from edgekit.errors import BundleError, EdgekitError, ParityFailed
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.parity.tiny_models import export, write_checkpoint
from tests.report import documents
from tests.report.reading import facts, parsed, section, table, text

SHORT = {"prompt_tokens": (20,), "depths": (30,), "decode_tokens": 5, "repetitions": 2, "threads": 1}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A tiny bundle; reports go to an empty directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return read_bundle(write_tiny_bundle(tmp_path / "bundle"))


def invoke(bundle: Bundle, *arguments: str) -> Result:
    return CliRunner().invoke(command, [str(bundle.path), *arguments])


def test_a_report_without_measurements(bundle: Bundle) -> None:
    result = invoke(bundle)
    assert result.exception is None, result.exception
    assert "Parity with PyTorch: not measured (--run measures it)" in result.stdout
    assert re.search(r"^report\.html: \d+ kB$", result.stdout, re.MULTILINE)
    page = parsed(Path("report.html").read_text())
    assert section(page, "parity").get("class") == "missing"
    # The bundle is as it was.
    assert all(check.ok for check in check_files(bundle, full=True))


def test_json_holds_the_data_and_writes_no_page(bundle: Bundle) -> None:
    write_sidecar(bundle, "eval", documents.perplexity())
    result = invoke(bundle, "--json")
    assert result.exception is None, result.exception
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert document["sections"]["perplexity"]["data"]["document"] == documents.perplexity()
    assert document["sections"]["speed"] == {"state": "missing", "data": None}
    assert not list(Path().iterdir())
    both = invoke(bundle, "--json", "-o", "page.html")
    assert json.loads(both.stdout) == document
    assert parsed(Path("page.html").read_text()) is not None


def test_stale_and_failed_measurements_are_said(bundle: Bundle) -> None:
    write_sidecar(bundle, "parity", documents.parity(passed=False, failure="prefill, hidden.1: x"))
    write_sidecar(bundle, "bench", documents.bench())
    file = bundle.path / "bench.json"
    file.write_text(file.read_text().replace(bundle.manifest_sha256, "0" * 64))
    result = invoke(bundle)
    assert "Parity with PyTorch: FAILED" in result.stdout
    assert "Speed: stale: measured with another state of the bundle (--run measures it again)" in result.stdout
    assert "Perplexity: not measured" in result.stdout
    assert "Size" not in result.stdout


def test_a_report_is_replaced_and_nothing_else_is(bundle: Bundle) -> None:
    assert invoke(bundle).exception is None
    assert invoke(bundle).exception is None
    Path("report.html").write_text("<html>mine</html>")
    result = invoke(bundle)
    assert isinstance(result.exception, EdgekitError)
    assert "report.html is something else" in result.exception.fact
    assert Path("report.html").read_text() == "<html>mine</html>"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("BUNDLE/report.html", "would be inside"),
        ("BUNDLE/../bundle/model.onnx", "would be inside"),
        (".", "is a directory"),
        ("nowhere/report.html", "nowhere is none"),
    ],
)
def test_places_where_no_report_belongs(output: str, words: str, bundle: Bundle) -> None:
    result = invoke(bundle, "-o", output.replace("BUNDLE", str(bundle.path)))
    assert isinstance(result.exception, EdgekitError)
    assert words in result.exception.fact
    assert result.stdout == ""
    assert all(check.ok for check in check_files(bundle, full=True))


def test_a_damaged_bundle_and_a_damaged_measurement_are_refused(bundle: Bundle) -> None:
    (bundle.path / "bench.json").write_text("{")
    result = invoke(bundle)
    assert isinstance(result.exception, BundleError)
    assert "bench.json" in str(result.exception)
    (bundle.path / "tokenizer.json").write_text("short")
    result = invoke(bundle)
    assert isinstance(result.exception, BundleError)
    assert "tokenizer.json is truncated" in result.exception.fact
    assert not list(Path().iterdir())


def test_results_of_kits(bundle: Bundle) -> None:
    Path("a.json").write_text(json.dumps(documents.kit_result()))
    second = documents.kit_result()
    second["kit"]["device"] = "thor-t5000"
    Path("b.json").write_text(json.dumps(second))
    result = invoke(bundle, "--kit-result", "a.json", "--kit-result", "b.json")
    assert result.exception is None, result.exception
    part = section(parsed(Path("report.html").read_text()), "kits")
    assert [text(heading) for heading in part.iter("h3")] == ["jetson-orin-nano-8gb", "thor-t5000"]
    assert invoke(bundle, "--kit-result", "c.json").exit_code == 2


def test_the_browser_is_asked_to_show_the_page(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(click, "launch", asked.append)
    assert invoke(bundle, "--open", "-o", "a b.html").exception is None
    assert asked == [(Path.cwd() / "a b.html").as_uri()]
    assert invoke(bundle, "--open", "--json").exit_code == 2
    assert len(asked) == 1


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A real export with its checkpoint, measurements as short as can be."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    speech = tmp_path / "speech.txt"
    speech.write_text("hello world, naïve café 12345\n" * 20)
    monkeypatch.setattr("edgekit.evaluate.text.SHIPPED_TEXT", speech)
    monkeypatch.setattr("edgekit.parity.prompts.shipped_prompts", lambda: ["hello", "what is 12345?"])
    monkeypatch.setattr("edgekit.parity.check.shipped_prompts", lambda: ["hello", "what is 12345?"])
    monkeypatch.setattr(report_run, "PARITY_TOKENS", 8)
    monkeypatch.setattr(report_run, "CONTEXT", 64)
    options = benchmark_run.BenchmarkOptions(**SHORT)  # type: ignore[arg-type]
    monkeypatch.setattr(benchmark_run, "BenchmarkOptions", lambda: options)
    monkeypatch.chdir(tmp_path)
    return export(open_checkpoint(write_checkpoint(tmp_path / "checkpoint", "llama")), tmp_path / "made", dtype="int8")


def test_run_measures_what_is_missing_and_the_page_shows_it(real: Bundle) -> None:
    result = invoke(real, "--run", "-o", "page.html")
    assert result.exception is None, result.exception
    assert re.search(r"to measure: parity, eval, bench; about [\d.:]+ (s|min)", result.stderr)
    kept: dict[str, Any] = {name: read_sidecar(real, name) for name in ("parity", "eval", "bench")}
    assert None not in kept.values()
    root = parsed(Path("page.html").read_text())
    assert {part.get("class") for part in root.iter("section")} == {"ok"}
    positions = kept["parity"]["model"]["positions"]
    assert table(section(root, "parity"), f"Over {positions:,} positions")
    assert facts(section(root, "perplexity"))["bits per byte"] == f"{kept['eval']['bits_per_byte']:.5f}"
    samples = table(section(root, "speed"), "Numbers: Time of a decode step")
    assert next(iter(samples.values()))[-1] == str(sum(map(len, kept["bench"]["decodes"][0]["steps_s"]))) == "10"
    again = invoke(real, "--run", "-o", "page.html")
    assert "nothing to run" in again.stderr
    assert find_measurement(real, "bench").measured_at  # type: ignore[union-attr]
    assert {name: read_sidecar(real, name) for name in kept} == kept


def test_run_goes_on_without_what_cannot_be_measured(real: Bundle, tmp_path: Path) -> None:
    """The checkpoint is gone: no parity, and so no speed; the page is made all the same, and the exit code tells."""
    (tmp_path / "checkpoint").rename(tmp_path / "elsewhere")
    result = invoke(real, "--run", "-o", "page.html")
    assert isinstance(result.exception, EdgekitError)
    assert "was made from" in result.exception.rule
    assert "parity was not measured" in result.stderr
    assert "bench was not measured" in result.stderr
    root = parsed(Path("page.html").read_text())
    states = {part.get("id"): part.get("class") for part in root.iter("section")}
    assert (states["parity"], states["perplexity"], states["speed"]) == ("missing", "ok", "missing")


def test_run_tells_a_parity_that_fails(real: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgekit.parity.check as check
    from edgekit.parity.report import ParityReport

    measured = check.parity_of

    def failing(*arguments: Any, **named: Any) -> ParityReport:
        found = measured(*arguments, **named)
        worse = {**vars(found.model), "top1": 0.1}
        return ParityReport(**{**vars(found), "model": type(found.model)(**worse)})

    monkeypatch.setattr(check, "parity_of", failing)
    result = invoke(real, "--run", "-o", "page.html")
    assert isinstance(result.exception, ParityFailed)
    assert "Parity with PyTorch: FAILED" in result.stdout
    assert section(parsed(Path("page.html").read_text()), "parity").get("class") == "failed"
    assert read_sidecar(real, "bench") is None


def test_a_report_needs_no_torch(bundle: Bundle) -> None:
    code = (
        "import sys\n"
        "from edgekit.cli.report import command\n"
        f"command([{str(bundle.path)!r}], standalone_mode=False)\n"
        "print(*sorted({'torch', 'transformers', 'onnxruntime', 'edgekit.parity'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.stdout.splitlines()[-1] == ""
