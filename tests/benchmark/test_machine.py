"""What the machine tells: other processes, memory, bandwidth, commit, statistics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.benchmark.bandwidth import read_bandwidth
from edgekit.benchmark.environment import commit, environment
from edgekit.benchmark.memory import resident_bytes
from edgekit.benchmark.noise import CpuClock, cpu_clock, others_share
from edgekit.benchmark.samples import summary


def test_statistics() -> None:
    found = summary([4.0, 1.0, 7.0])
    assert (found["median"], found["mean"], found["stdev"], found["min"]) == (4.0, 4.0, 3.0, 1.0)
    assert found["samples"] == [4.0, 1.0, 7.0]
    assert summary([2.0])["stdev"] is None


def test_the_share_of_others() -> None:
    before = CpuClock(total_s=100, busy_s=50, own_s=10)
    assert others_share(before, CpuClock(total_s=110, busy_s=58, own_s=13)) == pytest.approx(0.5)
    # Clocks tick at different times: what this process took may be counted late.
    assert others_share(before, CpuClock(total_s=110, busy_s=52, own_s=13)) == 0.0
    assert others_share(before, before) is None
    assert others_share(None, before) is None


def test_the_processors_clock(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 1 20 300 40 5 6 7 50 9\ncpu0 1 2 3 4\n")
    found = cpu_clock(stat)
    assert found is not None
    ticks = os.sysconf("SC_CLK_TCK")
    assert found.total_s == pytest.approx(479 / ticks)  # guest time, the last two, is part of user time
    assert found.busy_s == pytest.approx(139 / ticks)  # all but idle and iowait
    assert cpu_clock(tmp_path / "none") is None


def test_own_work_is_told_from_that_of_others() -> None:
    before, own = cpu_clock(), time.process_time()
    sum(range(15_000_000))
    after, own = cpu_clock(), time.process_time() - own
    assert before is not None
    assert after is not None
    assert after.own_s - before.own_s == pytest.approx(own, abs=0.05)
    assert after.busy_s - before.busy_s > own - 0.1


def test_another_busy_process_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = cpu_clock()
        time.sleep(1)
        after = cpu_clock()
        other.kill()
    share = others_share(before, after)
    assert share is not None
    # It keeps one processor busy; what it leaves to others on a loaded machine counts as well.
    assert share > 0.5 / (os.cpu_count() or 1)


def test_memory_of_this_process(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t 1000 kB\nRssAnon:\t 600 kB\nRssFile:\t 400 kB\n")
    assert resident_bytes(status) == {
        "peak": 2048000, "now": 1024000, "anonymous": 614400, "file": 409600,
    }  # fmt: skip
    assert resident_bytes(tmp_path / "none") is None
    status.write_text("Name:\tx\n")
    assert resident_bytes(status) is None


def test_the_peak_is_this_processs_own() -> None:
    """A child of a large process does not inherit its parent's peak, as getrusage would have it."""
    ballast = bytearray(300 << 20)
    code = "import json; from edgekit.benchmark.memory import resident_bytes; print(json.dumps(resident_bytes()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["peak"] < len(ballast) / 2


def test_bandwidth_is_of_a_plausible_size() -> None:
    found = read_bandwidth(1, size=32 << 20)
    assert found is not None
    assert 2e8 < found < 5e12


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert commit(package) is None
    git(tmp_path, "init")
    assert commit(package) is None  # nothing committed
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    head = commit(package)
    assert head is not None
    assert len(head) == 40
    (package / "__init__.py").write_text("1")
    assert commit(package) == head + "+changes"


def test_a_package_that_git_ignores_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("site-packages/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    package = tmp_path / "site-packages" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert commit(package) is None


def test_the_environment_is_json(tmp_path: Path) -> None:
    governor = tmp_path / "governor"
    governor.write_text("performance\n")
    found = environment(governor)
    json.dumps(found)
    assert found["governor"] == "performance"
    assert environment(tmp_path / "none")["governor"] is None
    assert found["cpu"]
    assert len(found["load_average"]) == 3
    assert {"edgekit", "python", "numpy"} <= found["versions"].keys()
