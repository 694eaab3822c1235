"""`edgekit devices list|show|probe|validate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli import devices
from edgekit.device import host
from edgekit.device.profile import DEVICES, device_names
from edgekit.errors import DeviceError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(devices.command, list(arguments))


def test_list_is_a_table_of_all() -> None:
    result = run("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == device_names()
    orin = next(line for line in lines if line.startswith("jetson-orin-nano-8gb"))
    for figure in ("8.7", "102.4", "16.71", "7-25", "tensorrt"):
        assert figure in orin.split()


def test_list_as_json_has_units_and_sources() -> None:
    documents = json.loads(run("list", "--json").stdout)["devices"]
    assert [document["name"] for document in documents] == device_names()
    by_name = {document["name"]: document for document in documents}
    assert by_name["l4"]["memory_bytes"] == 24 * 2**30
    assert by_name["l4"]["usable_memory_bytes"] == 23034 * 2**20
    assert all(document["sources"]["peak_ops_per_s"] for document in documents)


@pytest.mark.parametrize("name", device_names())
def test_show_has_every_source(name: str) -> None:
    document = json.loads(run("show", name, "--json").stdout)
    result = run("show", name)
    assert result.exit_code == 0
    for field, source in document["sources"].items():
        assert f"{field}: {source}" in result.stdout
    for mode in document["power_modes"]:
        assert f"{mode['name']}: " in result.stdout


def test_show_says_what_is_unknown() -> None:
    lines = {line[2:24].strip(): line[24:].strip() for line in run("show", "h200").stdout.splitlines()}
    assert lines["L2 cache"].endswith("unknown: no public source")
    assert lines["storage"].endswith("unknown")


def test_unknown_name() -> None:
    result = run("show", "jetson-orin-nano")
    assert isinstance(result.exception, DeviceError)
    assert "jetson-orin-nano-8gb" in result.exception.next_step
    assert result.stdout == ""


def test_validate_all_and_by_file() -> None:
    result = run("validate")
    assert result.exit_code == 0
    assert result.stdout.count(": ok\n") == len(device_names())
    assert json.loads(run("validate", str(DEVICES / "l4.toml"), "--json").stdout) == {
        "ok": True,
        "files": [{"file": str(DEVICES / "l4.toml"), "ok": True}],
    }


def test_validate_names_file_and_field_and_goes_on(tmp_path: Path) -> None:
    text = (DEVICES / "l4.toml").read_text()
    mistyped, sparse = tmp_path / "mistyped.toml", tmp_path / "sparse.toml"
    mistyped.write_text(text.replace("gpu_clock_hz = 2.04e9", 'gpu_clock_hz = "2.04 GHz"'))
    sparse.write_text(text.replace("fp16 = 121e12", "fp16 = 242e12"))
    files = [str(mistyped), str(sparse), str(tmp_path / "nothing.toml"), str(DEVICES / "l4.toml")]
    result = run("validate", *files, "--json")
    assert isinstance(result.exception, DeviceError)
    document = json.loads(result.stdout)
    assert not document["ok"]
    assert [each["ok"] for each in document["files"]] == [False, False, False, True]
    for each, file, field in zip(
        document["files"], files, ("gpu_clock_hz", "peak_ops_per_s.fp16", "No such file"), strict=False
    ):
        assert file in each["found"]
        assert field in each["rule"] + each["found"]
    plain = run("validate", *files)
    assert plain.stdout.count("FAILED") == 3
    assert f"{DEVICES / 'l4.toml'}: ok" in plain.stdout


def test_probe_on_a_machine_with_a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi = "NVIDIA L4, 8.9, 23034, 580.65.06, 40.00, 2040\n"
    monkeypatch.setattr(host, "output", lambda command: smi if command[0] == "nvidia-smi" else None)
    (document,) = json.loads(run("probe", "--json").stdout)["devices"]
    assert (document["kind"], document["name"], document["profile"]) == ("gpu", "NVIDIA L4", "l4")
    assert document["deviations"] == ["the power limit is 40 W of 72 W"]
    result = run("probe")
    assert "  is l4 (edgekit devices show l4)\n  deviates: the power limit is 40 W of 72 W\n" in result.stdout


def test_probe_on_a_machine_with_an_unknown_card(monkeypatch: pytest.MonkeyPatch) -> None:
    smi = "NVIDIA T4, 7.5, 15360, 580.65.06, 70.00, 1590\n"
    monkeypatch.setattr(host, "output", lambda command: smi if command[0] == "nvidia-smi" else None)
    assert "no known device is this one; devices/README.md" in run("probe").stdout


def test_probe_on_this_machine() -> None:
    result = run("probe", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["devices"]
