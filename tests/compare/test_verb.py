"""`edgekit compare`: tables, pages and plots of real tiny bundles, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.cli.compare import command
from edgekit.errors import BundleError, EdgekitError, SessionError
from tests.parity.tiny_models import export, write_checkpoint
from tests.report.reading import parsed, section, text

SHORT = ["--threads", "1", "--rounds", "1"]
OF_TEXT = ["--context", "64", "--windows", "4", "--depth", "20", "--decode-tokens", "4"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def decoders_compared(folder: Path, *arguments: object, names: tuple[str, ...] = ("fp32", "int8", "int4")) -> Result:
    bundles = [folder / name for name in names]
    return invoke(*bundles, "--text", folder / "text.txt", *SHORT, *OF_TEXT, *arguments)


def test_a_table_a_page_and_a_plot(decoders: Path, tmp_path: Path) -> None:
    page, plot = tmp_path / "page.html", tmp_path / "plot.png"
    result = decoders_compared(decoders, "-o", page, "-o", plot)
    assert result.exception is None, result.exception
    head, *rows = (line.split("  ") for line in result.stdout.splitlines())
    assert [cell.strip() for cell in head if cell][:4] == ["bundle", "perplexity", "change", "KL"]
    assert [row[0] for row in rows[:3]] == ["fp32 (reference)", "int8", "int4"]
    assert "the first 4 windows of 64 tokens of text.txt (500 tokens), 252 tokens predicted" in result.stdout
    assert "tokens/s at 20 tokens in the cache: median of 2 timings in 1 rounds" in result.stdout
    assert "not compared with PyTorch by edgekit parity: fp32, int8, int4" in result.stdout
    assert "about" in result.stderr  # the estimate
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    root = parsed(page.read_text())
    assert [element.get("id") for element in root.iter("section")] == ["table", "quality", "speed", "bundles"]
    shown = text(section(root, "table"))
    assert "int8" in shown
    assert "fp32 (reference)" in shown
    assert not list(root.iter("script"))
    # A second one finds everything, and replaces what it made.
    again = decoders_compared(decoders, "-o", page, "-o", plot)
    assert again.exception is None, again.exception
    assert again.stdout.splitlines()[:4] == result.stdout.splitlines()[:4]
    assert "4 of 4 windows were measured before" in again.stderr
    assert "3 of 3 runs were timed before" in again.stderr
    assert "estimating" not in again.stderr


def test_json_holds_everything(decoders: Path) -> None:
    result = decoders_compared(decoders, "--json")
    assert result.exception is None, result.exception
    found = json.loads(result.stdout)
    assert found["kind"] == "decoder"
    assert found["reference"] == "fp32"
    assert found["settings"]["engine"] == {"backend": "cpu", "operators": "auto", "threads": 1}
    rows = {row["label"]: row for row in found["bundles"]}
    for name, row in rows.items():
        manifest = read_bundle(decoders / name).manifest
        assert row["bytes"] == manifest.bytes
        assert row["dtype"] == name
        assert row["read_per_token"]["bytes"] > 22 * manifest.cache.bytes_per_token
        assert len(row["speed"]["samples"]) == 2
        assert min(row["speed"]["samples"]) > 0
        assert row["failures"] == {}
    assert rows["fp32"]["quality"]["kl"] == 0
    assert rows["int4"]["quality"]["kl"] > rows["int8"]["quality"]["kl"] > 0
    by = [row["label"] for row in rows.values() if row["beaten"] is not None]
    # None smaller is as near to the reference; perplexity alone decides whether the reference is beaten.
    assert set(by) <= {"fp32"}


def test_a_checkpoint_as_reference_and_no_speed(decoders: Path) -> None:
    result = decoders_compared(
        decoders, "--reference", decoders / "checkpoint", "--rounds", "0", "--json", names=("fp32",)
    )
    assert result.exception is None, result.exception
    reference, fp32 = json.loads(result.stdout)["bundles"]
    assert (reference["reference"], reference["compared"], reference["speed"]) == (True, False, None)
    assert fp32["quality"]["kl"] == pytest.approx(0, abs=1e-6)
    assert fp32["quality"]["ratio"] == pytest.approx(1, abs=1e-5)
    assert fp32["speed"] is None


def test_the_shipped_text_is_cut_to_a_short_context(decoders: Path) -> None:
    result = invoke(decoders / "fp32", decoders / "int8", *SHORT, "--rounds", "0", "--windows", "1", "--json")
    assert result.exception is None, result.exception
    found = json.loads(result.stdout)
    assert found["text"]["name"] == "speeches.txt"
    assert found["settings"]["context"] == 256  # all that the tiny model holds
    assert found["settings"]["depth"] == 224


def test_encoders_are_compared_by_what_eval_measures(encoders: Path, tmp_path: Path) -> None:
    from edgekit.cli.eval import command as evaluate

    page, plot = tmp_path / "page.html", tmp_path / "plot.png"
    result = invoke(encoders / "fp32", encoders / "int8", *SHORT, "--json", "-o", page, "-o", plot)
    assert result.exception is None, result.exception
    found = json.loads(result.stdout)
    assert found["kind"] == "encoder"
    fp32, int8 = found["bundles"]
    assert fp32["quality"]["cosine_mean"] == pytest.approx(1)
    assert fp32["beaten"] is None
    assert len(int8["speed"]["samples"]) == 2
    arguments = [str(encoders / "int8"), "--baseline", str(encoders / "fp32"), "--threads", "1", "--json"]
    alone = json.loads(CliRunner().invoke(evaluate, arguments).stdout)
    assert int8["quality"] == {name: alone[name] for name in int8["quality"]}
    assert page.is_file()
    assert plot.is_file()
    shown = invoke(encoders / "fp32", encoders / "int8", *SHORT, "--reference", encoders / "checkpoint")
    assert shown.exception is None, shown.exception
    assert shown.stdout.splitlines()[1].startswith("checkpoint (PyTorch), reference")


@pytest.mark.parametrize("extra", [["--context", "64"], ["--depth", "3"], ["--windows", "2"], ["--operators", "auto"]])
def test_what_has_no_effect_with_encoders(extra: list[str], encoders: Path) -> None:
    result = invoke(encoders / "fp32", encoders / "int8", *extra)
    assert result.exit_code == 2
    assert f"{extra[0]} has no effect with encoders" in result.output


def graph_damaged(bundle: Path) -> Path:
    """As large as it was, so that opening the bundle does not notice."""
    graph = bundle / json.loads((bundle / "manifest.json").read_text())["graph"]["file"]
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    return bundle


def test_one_that_fails_is_named_and_the_others_are_compared(decoders: Path, tmp_path: Path) -> None:
    damaged = graph_damaged(Path(shutil.copytree(decoders / "int4", tmp_path / "damaged")))
    page = tmp_path / "page.html"
    arguments = ["--text", decoders / "text.txt", *SHORT, *OF_TEXT, "-o", page]
    result = invoke(decoders / "fp32", damaged, decoders / "int8", *arguments)
    assert isinstance(result.exception, (SessionError, BundleError)), result.exception
    lines = result.stdout.splitlines()
    assert lines[2].split()[:2] == ["damaged", "FAILED"]
    assert lines[3].split()[0] == "int8"
    assert "FAILED" not in lines[3]
    assert any(line.startswith("FAILED: quality of damaged: ") for line in lines)
    assert "failed" in str(section(parsed(page.read_text()), "table").get("class"))


def test_bundles_that_read_other_tokens(decoders: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "other", "llama")
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    export(open_checkpoint(checkpoint), tmp_path / "bundle")
    result = invoke(decoders / "fp32", tmp_path / "bundle", *SHORT)
    assert isinstance(result.exception, EdgekitError)
    assert "predict the same tokens" in result.exception.rule
    of_checkpoint = invoke(decoders / "fp32", "--reference", checkpoint, *SHORT)
    assert isinstance(of_checkpoint.exception, EdgekitError)
    assert "predict the same tokens" in of_checkpoint.exception.rule
    assert result.stdout == of_checkpoint.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", "300"], "one holds 256"),
        (["--depth", "250", "--decode-tokens", "10"], "260 tokens are needed, one holds 256"),
        (["--decode-tokens", "256"], "257 tokens are needed"),
    ],
)
def test_lengths_that_do_not_fit(arguments: list[str], words: str, decoders: Path) -> None:
    result = invoke(decoders / "fp32", decoders / "int8", *arguments)
    assert isinstance(result.exception, EdgekitError)
    assert words in result.exception.fact


def test_outputs_are_refused_before_anything_is_measured(decoders: Path, tmp_path: Path) -> None:
    assert decoders_compared(decoders, "-o", tmp_path / "x.pdf").exit_code == 2
    for name in ("mine.html", "mine.png"):
        (tmp_path / name).write_text("something else")
        result = decoders_compared(decoders, "-o", tmp_path / name)
        assert isinstance(result.exception, EdgekitError)
        assert "something else" in result.exception.fact
        assert (tmp_path / name).read_text() == "something else"
        assert isinstance(decoders_compared(decoders, "-o", tmp_path / "none" / name).exception, EdgekitError)
    assert not (tmp_path / "cache").exists()


def test_one_bundle_needs_a_reference(decoders: Path) -> None:
    assert invoke().exit_code == 2
    result = invoke(decoders / "fp32")
    assert result.exit_code == 2
    assert "--reference" in result.output


def test_comparing_bundles_needs_no_torch(decoders: Path) -> None:
    arguments: list[Any] = [decoders / "fp32", decoders / "int8", "--rounds", "0", "--windows", "1", *OF_TEXT[:2]]
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from edgekit.cli.compare import command\n"
        f"result = CliRunner().invoke(command, {list(map(str, arguments))!r})\n"
        "assert result.exception is None, result.exception\n"
        "print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"
