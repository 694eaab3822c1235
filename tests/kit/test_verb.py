"""edgekit build BUNDLE --device D -o KIT."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.build import preflight
from edgekit.bundle import Bundle
from edgekit.cli.build import command
from edgekit.errors import BuildError
from edgekit.kit.document import verify_kit
from tests.kit.conftest import DEVICE


def test_the_verb_makes_a_kit(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle, kit = bundles["llama-jetpack6"], tmp_path / "kit"
    arguments = [str(bundle.path), "--device", DEVICE, "--max-kv-cache-capacity", "96", "-o", str(kit), "--json"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    made = verify_kit(kit)
    assert found["sha256"] == made.sha256
    assert found["about"]["max_kv_cache_capacity"] == 96
    assert made.manifest.max_input_len == 96, "no piece of a prompt is longer than the context"


def test_the_next_step_is_printed(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    done = CliRunner().invoke(command, [str(bundles["llama-jetpack6"].path), "--device", DEVICE, "-o", str(kit)])
    assert done.exit_code == 0, done.output
    assert "JetPack 6.2 (TensorRT 10.3)" in done.stdout
    assert "./kit/run.sh" in done.stdout
    assert re.search(r"^planned: it fits: \d+ MB of [\d.]+ GB to run; to build there, .*: fits$", done.stdout, re.M)


def test_a_dry_run_checks_and_makes_none(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    arguments = [str(bundles["llama-jetpack6"].path), "--device", DEVICE, "-o", str(tmp_path / "kit"), "--dry-run"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert "JetPack 6.2 (TensorRT 10.3), is not made" in done.stdout
    assert "planned: it fits" in done.stdout
    told = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    assert told["about"]["plan"]["verdict"]["run"] == "fits"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option",
    [
        "--refit",
        "--strip",
        "--weight-streaming",
        "--rebuild",
        "--name=x",
        "--memory-limit=4GB",
        "--no-cache",
        "--progress=json",
    ],
)
def test_what_is_of_a_build_here_does_not_go_with_a_kit(
    option: str, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    arguments = [str(bundles["llama-jetpack6"].path), "--device", DEVICE, "-o", str(tmp_path / "kit"), option]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert f"{option.partition('=')[0]} is of a build here: it does not go with -o" in done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_place_for_it_the_kit_is_what_is_advised(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "local_capabilities", set)
    done = CliRunner().invoke(command, [str(bundles["llama-jetpack6"].path), "--device", DEVICE])
    assert isinstance(done.exception, BuildError)
    assert f"--device {DEVICE} -o KIT" in done.exception.next_step
