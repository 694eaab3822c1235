"""A kit is whole, holds what the device needs, and is refused where it could not work."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgekit import files
from edgekit.bundle import Bundle, read_bundle
from edgekit.cli.plan import command as plan_verb
from edgekit.device.profile import Software, device_profile
from edgekit.errors import BuildError, BundleError, DoesNotFit
from edgekit.kit import make
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
    assert about.cpu_architecture == "aarch64"
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


def test_a_kit_carries_the_plan_of_its_sizes_and_release(kit: Kit, bundles: dict[str, Bundle]) -> None:
    arguments = ["--device", DEVICE, "--context", "128", "--max-input-len", "32", "--json"]
    done = CliRunner().invoke(plan_verb, [str(bundles["llama-jetpack6"].path / "config.json"), *arguments])
    verb, own = json.loads(done.stdout), kit.manifest.plan
    assert own is not None
    assert own["options"] == verb["options"]
    assert own["device"] == verb["device"]
    assert own["memory"]["items"]["weights"] == verb["memory"]["items"]["weights"]
    assert (own["verdict"]["run"], own["build"]["on_device"]) == ("fits", True)
    # The verb plans with the newest release, whose caches are in place; the kit is for JetPack 6.2, where they grow.
    assert own["memory"]["items"]["cache"]["value"] == 2 * verb["memory"]["items"]["cache"]["value"]
    assert any("older than 10.15" in note for note in own["notes"])


def test_what_is_planned_not_to_run_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    # Weights and caches would fit; the CUDA context besides them would not.
    small = asked_of(memory_bytes=400_000_000, memory_reserved_bytes=None)
    with pytest.raises(DoesNotFit) as caught:
        make_kit(bundles["llama-jetpack6"], small, tmp_path / "kit")
    assert "CUDA context and runtime" in caught.value.fact
    assert f"--device {DEVICE}" in caught.value.next_step
    assert not list(tmp_path.iterdir())


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


def test_another_backend_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    asked = request("dgx-spark")
    asked = replace(asked, build=replace(asked.build, backend="tensorrt-rtx"))
    with pytest.raises(BuildError, match="--backend tensorrt-rtx was asked for"):
        make_kit(bundles["llama-tensorrt"], asked, tmp_path / "kit")


def test_a_place_that_is_taken_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "thesis.txt").write_text("mine")
    said: list[str] = []
    for place in (tmp_path / "kit", tmp_path / "kit" / "thesis.txt", bundles["llama-jetpack6"].path):
        with pytest.raises(BundleError, match="holds something") as caught:
            make_kit(bundles["llama-jetpack6"], request(), place, said.append)
        assert caught.value.next_step == "choose another place with -o, or empty it yourself"
    assert said == [], "nothing was begun"
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]
    assert (tmp_path / "kit" / "thesis.txt").read_text() == "mine"


def test_a_library_that_is_given_goes_into_the_kit(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    library = shared_library(tmp_path / "library.so", AARCH64)
    made = make_kit(bundles["t6-jetpack6"], request(library=library), tmp_path / "kit")
    assert (made.manifest.plugin_library, made.manifest.cpu_architecture) == ("libedgekit_tensorrt.so", "aarch64")
    assert (tmp_path / "kit" / "libedgekit_tensorrt.so").read_bytes() == library.read_bytes()


AARCH64, X86_64, RISCV = 183, 62, 243


def shared_library(path: Path, machine: int, kind: int = 3) -> Path:
    """The header of an ELF file: 64 bits, little-endian, of a kind (3: shared) and for a machine."""
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + kind.to_bytes(2, "little") + machine.to_bytes(2, "little"))
    return path


@pytest.mark.parametrize(
    ("machine", "kind", "words"),
    [(X86_64, 3, "is one for x86_64"), (RISCV, 3, "is none"), (AARCH64, 1, "is none"), (None, 3, "does not exist")],
)
def test_a_library_that_cannot_be_the_device_s_is_refused(
    bundles: dict[str, Bundle], tmp_path: Path, machine: int | None, kind: int, words: str
) -> None:
    library = tmp_path / "library.so"
    if machine is not None:
        shared_library(library, machine, kind)
    with pytest.raises(BuildError, match=words):
        make_kit(bundles["t6-jetpack6"], request(library=library), tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    ("device", "processor", "capabilities"),
    [
        ("dgx-spark", "aarch64", ("121",)),
        ("jetson-orin-nano-8gb", "aarch64", ("87", "110")),
        ("h100-sxm", "x86_64", ("90",)),
    ],
)
def test_the_library_is_compiled_for_the_processor_of_the_profile(
    bundles: dict[str, Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    processor: str,
    capabilities: tuple[str, ...],
) -> None:
    asked: list[object] = []
    said: list[str] = []

    def compiled(architectures: tuple[str, ...], toolchain: str) -> Path:
        asked.append((architectures, toolchain))
        return shared_library(tmp_path / "library.so", AARCH64 if toolchain == "aarch64" else X86_64)

    monkeypatch.setattr(make, "toolchain_for", lambda architecture: architecture)
    monkeypatch.setattr(make, "plugin_library", compiled)
    made = make_kit(bundles["t6-jetpack6"], request(device), tmp_path / "kit", said.append)
    assert asked == [(capabilities, processor)]
    assert made.manifest.cpu_architecture == processor
    # Where a card is put is not in its profile, and what was chosen for it is said.
    assert any("--plugin-library" in line for line in said) == (device == "h100-sxm")


def test_a_disk_that_runs_full(bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(files.copy_tree, "__kwdefaults__", {**files.copy_tree.__kwdefaults__, "copy": full})
    with pytest.raises(DoesNotFit, match="ran full"):
        make_kit(bundles["llama-jetpack6"], request(), tmp_path / "place" / "kit")
    assert not list((tmp_path / "place").iterdir())


def test_run_sh_is_a_script_that_the_shell_accepts(kit: Kit) -> None:
    script = kit.path / "run.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)
