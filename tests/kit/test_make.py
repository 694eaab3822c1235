"""A kit is whole, holds what the device needs, and is refused where it could not work."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.device.profile import Software, device_profile
from edgekit.errors import BuildError, BundleError, DoesNotFit
from edgekit.kit.document import KIT_NAME, Kit, read_kit, verify_kit
from edgekit.kit.golden import read_golden
from edgekit.kit.make import KitRequest, make_kit, software_for
from edgekit.kit.parity import golden_parity
from edgekit.runtime.session import session_from_bundle
from tests.kit.conftest import DEVICE, request


def test_a_kit_says_what_it_is_for(kit: Kit) -> None:
    about = kit.manifest
    assert (about.device, about.compute_capability, about.form, about.dtype) == (DEVICE, "87", "jetpack6", "fp16")
    assert (about.software, about.tensorrt, about.cuda) == ("JetPack 6.2", "10.3", "12.6")
    assert about.operators_checked == "10.3"
    assert (about.max_batch_size, about.max_input_len, about.max_kv_cache_capacity) == (1, 32, 128)
    assert [profile["name"] for profile in about.profiles] == ["prefill", "decode"]
    assert about.profiles[0]["axes"]["sequence_length"]["largest"] == 32
    assert about.plugin_library == ""


def test_its_files_are_listed_and_are_what_they_were(kit: Kit, bundles: dict[str, Bundle]) -> None:
    assert verify_kit(kit.path).sha256 == kit.sha256
    listed = {entry.name for entry in kit.manifest.files}
    assert {"run.sh", "bundle/manifest.json", "bundle/model.onnx", "golden/texts.json", "golden/logits.npy"} <= listed
    assert f"source/edgekit/device/known/{DEVICE}.toml" in listed
    assert "source/edgekit/kit/__main__.py" in listed
    assert not any("__pycache__" in name for name in listed)
    inside = read_bundle(kit.path / "bundle", verify="full")
    assert inside.manifest_sha256 == bundles["llama-jetpack6"].manifest_sha256


def test_its_golden_texts_are_the_bundle_s_on_another_engine(kit: Kit, bundles: dict[str, Bundle]) -> None:
    golden = read_golden(kit.path / "golden")
    assert "onnxruntime" in golden.made_by
    assert len(golden.texts) == 3
    session = session_from_bundle(bundles["llama-jetpack6"], threads=1)
    assert golden_parity(session, golden, "float16").passed


@pytest.mark.parametrize("damage", ["alter", "remove", "add", "link", "kit"])
def test_a_damaged_kit_is_refused(kit: Kit, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "kit"
    shutil.copytree(kit.path, copy)
    names = {"alter": "run.sh", "remove": "bundle/model.onnx", "add": "source/edgekit/extra.py", "link": "run.sh"}
    if damage == "alter":
        file = copy / "source" / "edgekit" / "files.py"
        file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
        names["alter"] = "source/edgekit/files.py"
    elif damage == "remove":
        (copy / names["remove"]).unlink()
    elif damage == "add":
        (copy / names["add"]).write_text("print()")
    elif damage == "link":
        (copy / "run.sh").unlink()
        (copy / "run.sh").symlink_to(kit.path / "run.sh")
    else:
        document = json.loads((copy / KIT_NAME).read_text())
        document["files"][0]["name"] = "../elsewhere"
        (copy / KIT_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        verify_kit(copy)
    assert names.get(damage, "elsewhere") in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("device", None), ("max_batch_size", "1"), ("schema", 2), ("files", [3])])
def test_a_malformed_document_is_refused(kit: Kit, tmp_path: Path, field: str, value: object) -> None:
    document = json.loads((kit.path / KIT_NAME).read_text()) | {field: value}
    (tmp_path / KIT_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        read_kit(tmp_path)
    assert field in str(caught.value)


def test_what_a_run_adds_is_no_damage(kit: Kit, tmp_path: Path) -> None:
    copy = tmp_path / "kit"
    shutil.copytree(kit.path, copy)
    (copy / "results").mkdir()
    (copy / "results" / "result.json").write_text("{}")
    assert verify_kit(copy).sha256 == kit.sha256


def test_the_form_decides_the_release(bundles: dict[str, Bundle]) -> None:
    device = device_profile(DEVICE)
    assert software_for(bundles["llama-jetpack6"], device).tensorrt == "10.3"
    assert software_for(bundles["llama-tensorrt"], device).name == "JetPack 7.2"


def asked_of(**changes: Any) -> KitRequest:
    """A kit for a device whose profile is changed."""
    asked = request()
    return replace(asked, build=replace(asked.build, device=replace(asked.build.device, **changes)))


def test_a_form_that_no_release_takes_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    old = asked_of(software=(Software("JetPack 6.2", "12.6", "10.3"),))
    with pytest.raises(BuildError) as caught:
        make_kit(bundles["llama-tensorrt"], old, tmp_path / "kit")
    assert "has the form tensorrt; releases for the device are JetPack 6.2 (TensorRT 10.3)" in caught.value.fact
    assert "--form jetpack6" in caught.value.next_step
    assert not list(tmp_path.iterdir())


def test_what_every_build_checks_a_kit_checks_too(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit):
        make_kit(bundles["llama-jetpack6"], request(max_batch_size=10**9), tmp_path / "kit")
    with pytest.raises(BuildError, match="built by tensorrt-rtx"):
        make_kit(bundles["llama-jetpack6"], asked_of(backends=("tensorrt-rtx",)), tmp_path / "kit")
    with pytest.raises(BuildError, match="weights of fp32"):
        make_kit(bundles["llama-jetpack6"], asked_of(dtypes=("fp32",)), tmp_path / "kit")
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError):
        make_kit(bundles["llama-jetpack6"], request(), tmp_path / "kit")
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]
    assert (tmp_path / "kit" / "thesis.txt").read_text() == "mine"


def test_a_library_that_is_given_goes_into_the_kit(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    (tmp_path / "library.so").write_bytes(b"ELF")
    made = make_kit(bundles["t6-jetpack6"], request(library=tmp_path / "library.so"), tmp_path / "kit")
    assert made.manifest.plugin_library == "libedgekit_tensorrt.so"
    assert (tmp_path / "kit" / "libedgekit_tensorrt.so").read_bytes() == b"ELF"


def test_run_sh_is_a_script_that_the_shell_accepts(kit: Kit) -> None:
    script = kit.path / "run.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)
