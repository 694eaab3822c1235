"""Building the native library: once per sources, compiler and processor; what happens without a compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from edgekit.device import host
from edgekit.native import NativeUnavailable, built_library, ort_library
from edgekit.native.compiler import FLAGS, Compiler, find_compiler
from edgekit.native.library import ANNOUNCEMENT
from edgekit.native.source_files import SOURCES, compiled_files, digest, sources

#: Stands for a compiler: writes its arguments to the output and to a log.
FAKE = """#!/bin/sh
if [ "$1" = --version ]; then echo "fake 1.0"; exit 0; fi
for last; do :; done
echo "$@" > "$last"
echo built >> "{log}"
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty cache, a copy of the sources, and a compiler that takes no time."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(SOURCES, tmp_path / "sources", ignore=shutil.ignore_patterns("build*", "*.so"))
    script(tmp_path / "fake++", FAKE.format(log=tmp_path / "log"))
    monkeypatch.setenv("CXX", str(tmp_path / "fake++"))
    return tmp_path


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def builds(workshop: Path) -> int:
    log = workshop / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def build(workshop: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    return ort_library(said.append, workshop / "sources"), said


def test_builds_once_and_says_so(workshop: Path) -> None:
    assert built_library(find_compiler(), workshop / "sources") is None
    path, said = build(workshop)
    assert said == [ANNOUNCEMENT]
    assert path.is_file()
    assert path.is_relative_to(workshop / "cache")
    assert built_library(find_compiler(), workshop / "sources") == path
    assert build(workshop) == (path, [])
    assert builds(workshop) == 1
    arguments = path.read_text().split()
    assert set(FLAGS) <= set(arguments)
    assert [Path(a).name for a in arguments if a.endswith(".cpp")] == ["cpu_library.cpp", *["cpu.cpp"] * 3]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "name", ["cpu_library.cpp", "tpa_attention/cpu.cpp", "common/core.h", "tpa_append/generated.h"]
)
def test_changed_sources_are_built_again(workshop: Path, name: str) -> None:
    old, _ = build(workshop)
    with (workshop / "sources" / name).open("a") as file:
        file.write("// changed\n")
    assert build(workshop)[0] != old
    assert builds(workshop) == 2


def test_files_that_are_not_compiled_do_not_matter(workshop: Path) -> None:
    before = digest(workshop / "sources")
    (workshop / "sources" / "README.md").write_text("text")
    (workshop / "sources" / "common" / "unused.h").write_text("// unused")
    assert digest(workshop / "sources") == before


def test_another_compiler_or_processor_builds_its_own(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = build(workshop)
    script(workshop / "fake++", FAKE.format(log=workshop / "log").replace("1.0", "2.0"))
    second, _ = build(workshop)
    monkeypatch.setattr(host, "cpu", lambda: host.Cpu("x86_64", "another", 2, frozenset()))
    third, _ = build(workshop)
    assert len({first, second, third}) == 3


def test_a_failing_compiler_is_quoted(workshop: Path) -> None:
    script(
        workshop / "fake++",
        '#!/bin/sh\n[ "$1" = --version ] && echo old 4.8 && exit 0\necho no such flag >&2; exit 3\n',
    )
    with pytest.raises(NativeUnavailable, match="old 4.8.* ended with code 3:\nno such flag") as caught:
        build(workshop)
    assert "CXX" in caught.value.next_step
    assert not list((workshop / "cache" / "native").iterdir())


def test_an_interrupted_build_leaves_nothing_to_load(workshop: Path) -> None:
    script(
        workshop / "fake++",
        '#!/bin/sh\n[ "$1" = --version ] && echo v && exit 0\nfor l; do :; done; echo half > "$l"; exit 1\n',
    )
    with pytest.raises(NativeUnavailable):
        build(workshop)
    assert not list((workshop / "cache" / "native").rglob("*.so"))


def test_no_compiler(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NativeUnavailable) as caught:
        build(workshop)
    assert str(caught.value).splitlines() == [
        "native operators need a C++ compiler",
        "none of c++, g++, clang++ is on the PATH",
        "install one: apt install g++, or set CXX to a C++17 compiler",
    ]


def test_a_wrong_cxx_is_not_passed_over(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NativeUnavailable, match="'no-such-compiler' does not run"):
        build(workshop)


def test_wheels_carry_what_is_compiled() -> None:
    """Every file of the build is matched by the package data of pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["edgekit.native"]
    files = compiled_files()
    assert {"cpu_library.cpp", "tpa_attention/cpu.cpp", "common/core.h"} <= set(files)
    for name in files:
        path = PurePosixPath("sources", name)
        assert any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in patterns), name


def test_missing_sources(workshop: Path) -> None:
    with pytest.raises(NativeUnavailable, match="must contain the sources"):
        sources(workshop / "cache")


def test_a_cache_that_cannot_be_written(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workshop / "file").write_text("not a directory")
    monkeypatch.setenv("EDGEKIT_CACHE", str(workshop / "file"))
    with pytest.raises(NativeUnavailable, match="Not a directory"):
        build(workshop)


def test_builders_at_the_same_time(workshop: Path) -> None:
    """Four processes find no library and build it: each gets a whole one, and one is left."""
    slow = FAKE.format(log=workshop / "log").replace("for last", "sleep 0.3\nfor last")
    script(workshop / "fake++", slow)
    program = (
        "import sys; from pathlib import Path; from edgekit.native import ort_library\n"
        f"print(ort_library(lambda text: None, Path({str(workshop / 'sources')!r})).read_text() != '')"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["True"] * 4
    assert builds(workshop) > 1
    assert len(list((workshop / "cache" / "native").iterdir())) == 1


def test_the_real_library_needs_nothing_unusual(compiler: Compiler, library: Path) -> None:
    """It exports its entry point and does not depend on ONNX Runtime."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split(".so")[0] for line in dynamic.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libstdc++", "libm", "libgcc_s", "libc", "libpthread", "ld-linux-aarch64", "ld-linux-x86-64"}
    symbols = subprocess.run(
        ["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True
    ).stdout
    assert any(line.split()[-1] == "RegisterCustomOps" for line in symbols.splitlines() if "GLOBAL" in line)
