"""The plugin that skips what a missing package keeps from being collected, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    "tests/conftest.py": "from tests import missing_packages\n"
    "def pytest_configure(config):\n    config.pluginmanager.register(missing_packages)\n",
    "tests/test_fine.py": "def test_fine():\n    pass\n",
    "tests/test_module.py": "import no_such_package\n\ndef test_it():\n    pass\n",
    "tests/folder/conftest.py": "from tests.helper import thing\n",
    "tests/folder/test_inside.py": "def test_inside():\n    pass\n",
    "tests/helper.py": "from no_such_package import other\nthing = 1\n",
    "tests/other/conftest.py": "from tests.helper import thing\n",
    "tests/other/test_more.py": "def test_more():\n    pass\n",
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tests" / "missing_packages.py").write_text((ROOT / "tests" / "missing_packages.py").read_text())
    return tmp_path


def run(suite: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "tests",
    ]
    kept = {name: value for name, value in os.environ.items() if name not in ("EDGEKIT_CI", "PYTHONPATH")}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=suite,
        env=kept | {"PYTHONPATH": str(suite), **environment},
        timeout=120,
        check=False,
    )


def test_what_needs_a_missing_package_is_skipped_with_its_name(suite: Path) -> None:
    done = run(suite)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 3 skipped" in done.stdout
    assert done.stdout.count("the package of the module no_such_package is not installed") == 3


def test_where_nothing_may_be_missing_it_is_an_error(suite: Path) -> None:
    done = run(suite, EDGEKIT_CI="1")
    assert done.returncode == 2
    assert "No module named 'no_such_package'" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import tests.no_such_module\n", "No module named 'tests.no_such_module'"),
        ("from json import no_such_name\n", "cannot import name 'no_such_name'"),
        ("import json.no_such_part\n", "No module named 'json.no_such_part'"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_other_errors_stay_errors(suite: Path, text: str, said: str) -> None:
    (suite / "tests" / "test_broken.py").write_text(text)
    done = run(suite)
    assert done.returncode == 2, done.stdout
    assert said in done.stdout
