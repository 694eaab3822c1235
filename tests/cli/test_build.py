"""`edgekit build` and what `inspect` and `verify` say of engines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import Bundle
from edgekit.cli.build import command
from edgekit.cli.build_progress import displayed_build, remaining
from edgekit.cli.inspect import command as inspect
from edgekit.cli.verify import command as verify
from edgekit.errors import BundleError
from tests.build.bundles import copied, need_tensorrt_rtx, tiny_bundle

ARGUMENTS = ("--device", "rtx-4090", "--max-kv-cache-capacity", "32", "--max-input-len", "8")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    need_tensorrt_rtx()
    return tiny_bundle(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def bundle(original: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return copied(original, tmp_path / "bundle").path


def build(bundle: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(command, [str(bundle), *ARGUMENTS, *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_build_inspect_verify(bundle: Path) -> None:
    result = build(bundle, "--progress", "plain")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("engine ")
    assert "sm89-fp16" in lines[0]
    assert "a tensorrt-rtx 1.7" in lines[0]
    assert lines[-2] == f"{bundle}/engines/sm89-fp16/model.engine: built and put into the bundle"
    assert re.search(r"^planned: .* s \(.*\), \d+ MB \(.*\) of memory of .* available, engine of", result.stderr, re.M)
    assert re.search(r"^build time +[\d.]+ s \(.* to .*\) +[\d.]+ s +[\d.]+$", result.stdout, re.M)
    assert re.search(r"^peak memory +\d+ MB \(.* to .*\) +\d+ MB +[\d.]+$", result.stdout, re.M)
    assert "building engine ..." in result.stderr
    shown = CliRunner().invoke(inspect, [str(bundle)])
    assert re.search(r"^  serves +1 x 32 tokens, 8 new at once$", shown.output, re.MULTILINE)
    checked = CliRunner().invoke(verify, [str(bundle)])
    assert "engines/sm89-fp16/model.engine" in checked.output
    assert checked.exit_code == 0
    engine = bundle / "engines/sm89-fp16/model.engine"
    content = engine.read_bytes()
    engine.unlink()  # a second name of it is in the cache
    engine.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = CliRunner().invoke(verify, [str(bundle)])
    assert isinstance(damaged.exception, BundleError)
    assert "engines/sm89-fp16/model.engine" in damaged.exception.fact


def test_json(bundle: Path) -> None:
    result = build(bundle, "--json", "--progress", "json")
    document = json.loads(result.stdout)
    assert (document["from"], document["engine"]["compute_capabilities"]) == ("built", ["89"])
    for name, fact in (("seconds", "build_seconds"), ("peak_memory_bytes", "build_peak_memory_bytes")):
        pair = document["build"][name]
        assert pair["measured"] == document["engine"][fact]
        assert pair["measured_over_planned"] == pytest.approx(pair["measured"] / pair["planned"]["value"])
    events = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert {"start", "end", "memory"} <= {event["event"] for event in events}
    assert all(event["peak_memory_bytes"] >= event["memory_bytes"] for event in events)
    assert "Building engine" in {event["phase"] for event in events}
    again = json.loads(build(bundle, "--json", "--progress", "none").stdout)
    assert (again["from"], again["engine"]) == ("bundle", document["engine"])
    inspected = json.loads(CliRunner().invoke(inspect, [str(bundle), "--json"]).stdout)
    assert inspected["engines"] == [document["engine"]]


def test_a_dry_run_builds_nothing(bundle: Path) -> None:
    before = sorted(path.name for path in bundle.iterdir())
    document = json.loads(build(bundle, "--dry-run", "--json").stdout)
    assert document["limits"] == {
        "max_batch_size": 1,
        "max_input_len": 8,
        "max_kv_cache_capacity": 32,
        "max_draft_len": 4,
    }
    assert document["planned"]["memory"]["value"] > 235e6
    assert document["seconds_before"] is None
    assert "max input len 8" in build(bundle, "--dry-run").stdout
    assert sorted(path.name for path in bundle.iterdir()) == before


def test_the_exit_code_and_three_lines_of_an_error(bundle: Path) -> None:
    arguments = [sys.executable, "-m", "edgekit.cli.main", "build", str(bundle), "--device", "rtx-40900"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert [line.partition(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "found", "next"]
    assert done.stdout == ""


def test_time_that_is_left() -> None:
    assert remaining(3.0, 10.0) == 7.0
    assert remaining(10.0, 10.0) is None
    assert remaining(1.0, None) is None


def test_a_bar_is_drawn_where_a_person_looks_on() -> None:
    import io

    from edgekit.build.process import Tick

    stream = io.StringIO()
    with displayed_build("bar", 10.0, stream) as watch:
        watch(Tick("Building engine", "start", 6, 1.0, 2_500_000_000, 2_500_000_000))
        watch(Tick("Building engine", "step", 2, 4.0, 2_500_000_000, 2_500_000_000))
    assert "building engine 2/6" in stream.getvalue() or "built" in stream.getvalue()


@pytest.mark.parametrize("how", ["bar", "plain", "json"])
def test_no_time_is_made_up_where_none_is_planned(how: str) -> None:
    import io

    from edgekit.build.process import Tick

    stream = io.StringIO()
    with displayed_build(how, None, stream) as watch:
        watch(Tick("Building engine", "start", 6, 1.0, 2_500_000_000, 2_500_000_000))
    shown = stream.getvalue()
    assert "uilding engine" in shown or "built" in shown
    assert " left" not in shown
    if how == "json":
        assert json.loads(shown)["remaining_seconds"] is None
