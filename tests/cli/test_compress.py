"""edgekit compress on tiny models: what it writes and prints, and what it refuses without a traceback."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli import compress as verb
from edgekit.cli.main import cli
from edgekit.compress.saten.request import method_names
from edgekit.errors import EdgekitError
from tests.compress.layerwise.small import compressed
from tests.parity.tiny_models import write_checkpoint

SMALL = ("--calibration-sequences", "4", "--calibration-length", "32", "--workers", "1", "--rounds", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "llama", "llama", num_hidden_layers=2)


def edgekit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def refusal(*arguments: str | Path) -> str:
    result = edgekit(*arguments)
    assert isinstance(result.exception, EdgekitError), (result.output, result.exception)
    return str(result.exception)


def test_the_methods_are_those_of_the_files() -> None:
    assert sorted(verb.METHODS) == method_names()


def test_a_model_is_compressed_and_inspected(source: Path, tmp_path: Path) -> None:
    result = edgekit("compress", source, "-o", tmp_path / "out", "--bits-per-weight", "5", *SMALL, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "out" / "compression.json").read_text())
    shown = edgekit("inspect", tmp_path / "out")
    assert "14 matrices" in shown.output
    rows = [line.split() for line in shown.output.splitlines() if line.startswith("model.layers.")]
    assert len(rows) == 14
    facts = json.loads(edgekit("inspect", tmp_path / "out", "--json").stdout)["compression"]
    assert facts["bytes"] == record["matrix_bytes"]
    assert {entry["matrix"].removesuffix(".weight") for entry in facts["matrices"]} == {row[0] for row in rows}
    # 4.625 bits are what plain int4 takes; whatever takes more is told.
    assert {e["matrix"] for e in facts["matrices"] if e["bits_per_weight"] > 4.625} == set(
        facts["reads_more_than_int4"]
    )


@pytest.mark.parametrize(
    ("form", "slower"),
    [(["--method", "dense", "--bits-per-weight", "4"], 0), (["--sparsity", "2:4", "--bits-per-weight", "8"], 14)],
    ids=str,
)
def test_forms_that_are_slower_than_int4_are_told(source: Path, tmp_path: Path, form: list[str], slower: int) -> None:
    """Codes alone are multiplied faster than int4 as MatMulNBits; 2:4 beside them takes longer, by measurement."""
    edgekit("compress", source, "-o", tmp_path / "out", *SMALL, *form)
    facts = json.loads(edgekit("inspect", tmp_path / "out", "--json").stdout)["compression"]
    assert len(facts["slower_than_int4"]) == slower
    assert f"slower than int4  {slower} of 14 matrices" in edgekit("inspect", tmp_path / "out").output


def test_the_healing_that_is_told_of_can_be_done(source: Path, tmp_path: Path) -> None:
    form = ["--method", "dense", "--bits-per-weight", "4"]  # which leaves nothing but what --also names
    told = edgekit("compress", source, "-o", tmp_path / "out", *SMALL, *form).stdout
    words = shlex.split(told[told.index("edgekit heal") :])
    assert words[words.index("--also") :] == ["--also", "scales", "--also", "codes", "--also", "norms"]
    result = edgekit(*words[1:], "--length", "32", "--steps", "1", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "estimate: 1 step" in result.stdout


def test_an_estimate_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = edgekit("compress", source, "-o", tmp_path / "out", "--ratio", "0.7", *SMALL, "--dry-run", "--json")
    estimate = json.loads(result.stdout)["estimate"]
    assert estimate["weight_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_plan_goes_by_way_of_a_file(source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert edgekit("compress", source, "-o", plan, "--bits-per-weight", "5", "--plan-only", *SMALL).exit_code == 0
    result = edgekit("compress", source, "-o", tmp_path / "out", "--plan", plan, "--workers", "1")
    assert result.exit_code == 0, result.output
    straight = edgekit("compress", source, "-o", tmp_path / "straight", "--bits-per-weight", "5", *SMALL)
    assert straight.exit_code == 0, straight.output
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "straight")]
    assert files[0] == files[1]


def test_what_an_edited_plan_says_is_recorded(source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert edgekit("compress", source, "-o", plan, "--ratio", "0.9", "--plan-only", "--uniform", *SMALL).exit_code == 0
    document = json.loads(plan.read_text())
    document["matrices"] = [{**document["matrices"][0], "method": "svd", "bytes": 5000}, document["matrices"][1]]
    plan.write_text(json.dumps(document))
    result = edgekit("compress", source, "-o", tmp_path / "out", "--plan", plan, "--workers", "1", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["method"], record["matrices"]) == ("saten-augmented, svd", 2)


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ((), "0 of them were given"),
        (("--bits-per-weight", "4", "--ratio", "0.5"), "2 of them were given"),
        (("--bits-per-weight", "-1"), "-1.0"),
        (("--bits-per-weight", "0.5"), "0.5 bits per weight"),
        (("--bits-per-weight", "40", "--dry-run"), "40 bits per weight"),
        (("--ratio", "3", "--dry-run"), "--ratio"),
        (("--target-bytes", "100000000", "--dry-run"), "--target-bytes"),
        (("--bits-per-weight", "4", "--sparsity", "some"), "'some'"),
        (("--bits-per-weight", "1", "--method", "dense", "--uniform"), "were asked for"),
        (("--bits-per-weight", "5", "--keep", "*"), "none is left"),
        (("--bits-per-weight", "5", "--keep", "*.down"), "--keep *.down matches none of 14"),
        (("--bits-per-weight", "5", "--resume"), "holds none"),
        (("--bits-per-weight", "5", "--budget-minutes", "0.01"), "were allowed"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple[str, ...], fact: str, source: Path, tmp_path: Path) -> None:
    assert fact in refusal("compress", source, "-o", tmp_path / "out", *SMALL, *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda text: text[:200], "JSONDecodeError"),
        (lambda text: text.replace('"bytes"', '"bytez"', 1), "KeyError: 'bytes'"),
        (lambda text: text.replace('"sequences": 4', '"sequences": 0'), "plan.json: 0"),
        (lambda text: text.replace('"length": 32', '"length": 7'), "plan.json: 7"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_plan_that_is_wrong_is_refused_before_anything_is_done(
    change: Callable[[str], str], fact: str, more: tuple[str, ...], source: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    made = edgekit("compress", source, "-o", plan, "--bits-per-weight", "5", "--plan-only", "--uniform", *SMALL)
    assert made.exit_code == 0
    plan.write_text(change(plan.read_text()))
    assert fact in refusal("compress", source, "-o", tmp_path / "out", "--plan", plan, "--workers", "1", *more)
    assert list(tmp_path.iterdir()) == [plan]


def test_what_a_plan_says_is_refused_beside_it(source: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    compressed(source, plan, plan_only=True)
    for options in (("--ratio", "0.5"), ("--method", "svd"), ("--rounds", "4"), ("--uniform",), ("--base-bits", "4")):
        result = edgekit("compress", source, "-o", tmp_path / "out", "--plan", plan, *options)
        assert result.exit_code == 2
        assert options[0] in result.output
        assert "has no effect with --plan" in result.output
    # Every option but those that a plan says nothing of.
    others = {"checkpoint", "destination", "calib", "plan", "plan_only", "scheduler", "workers", "resume", "overwrite",
              "dry_run", "offline", "as_json", "embeddings", "layout", "keep"}  # fmt: skip
    assert set(verb._OF_A_PLAN) == {each.name for each in verb.command.params} - others
