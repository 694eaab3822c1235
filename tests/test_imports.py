"""What importing edgekit loads. The static rules between packages are import-linter's, see pyproject.toml."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgekit

PACKAGE = Path(edgekit.__file__).parent
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "onnxruntime_genai",
    "onnxscript",
    "onnx_graphsurgeon",
    "tensorrt",
    "transformers",
    "numpy",
    "gguf",
    "safetensors",
    "huggingface_hub",
    "ml_dtypes",
    "tokenizers",
    "jinja2",
    "rich",
    "prompt_toolkit",
}
#: What a device does not have.
EXPORT_ONLY = {"torch", "onnx", "onnxscript", "onnx_graphsurgeon", "transformers", "gguf", "safetensors", "ml_dtypes"}
EXPORT_PACKAGES = {
    "build",
    "checkpoint",
    "compress",
    "export",
    "heal",
    "layers",
    "models",
    "ops",
    "parity",
    "recipe",
    "rewrite",
    "train",
}


def _loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running `code`."""
    report = f"import sys, json\n{code}\njson.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def _modules_of(*packages: str) -> list[str]:
    """Every module of edgekit below the named packages, by dotted name."""
    files = [file for package in packages for file in (PACKAGE / package).rglob("*.py")]
    assert files, packages
    parts = (file.relative_to(PACKAGE.parent).with_suffix("").parts for file in sorted(files))
    return [".".join(part for part in names if part != "__init__") for names in parts]


def test_importing_edgekit_loads_nothing_heavy() -> None:
    assert not _loaded_by("import edgekit, edgekit.errors, edgekit.contract") & HEAVY


def test_opening_a_bundle_needs_the_standard_library_only() -> None:
    assert not _loaded_by("import edgekit.bundle") & HEAVY


@pytest.mark.parametrize("package", ["runtime", "chat", "device"])
def test_the_device_loads_neither_torch_nor_the_exporter(package: str) -> None:
    loaded = _loaded_by("import " + ", ".join(_modules_of(package)))
    assert f"edgekit.{package}" in loaded
    assert not loaded & EXPORT_ONLY
    assert not {name for name in loaded if name.startswith("edgekit.") and name.split(".")[1] in EXPORT_PACKAGES}


@pytest.mark.parametrize("package", ["checkpoint", "rewrite"])
def test_checkpoints_and_rewrites_need_no_torch(package: str) -> None:
    loaded = _loaded_by("import " + ", ".join(_modules_of(package)))
    assert f"edgekit.{package}" in loaded
    assert not loaded & {"torch", "transformers"}


def test_no_package_escapes_the_rule_about_the_command_line() -> None:
    """import-linter looks at the packages it is given: a new one has to be added to its lists."""
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (rule,) = (contract for contract in contracts if contract["name"] == "Nothing imports the command line")
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {f"edgekit.{name}" for name in names - {"__init__", "cli"}} == set(rule["source_modules"])
