"""The measured process: requests, messages, and every way in which it can end."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.benchmark import process as module
from edgekit.benchmark.process import run_worker
from edgekit.benchmark.run import BenchmarkOptions, options_within
from edgekit.benchmark.worker import Request, serve
from edgekit.errors import BundleError, DoesNotFit, SessionError
from edgekit.progress import SilentProgress
from tests.chat.tiny_bundle import write_tiny_bundle

REQUEST = Request("measure", "/bundles/x", "cpu", 2, (128, 512), (7,), 3, 5)


class Recorded(SilentProgress):
    """What was shown."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self.calls.append((name, total, unit))

    def advance(self, n: int = 1) -> None:
        self.calls.append((n,))


@pytest.mark.parametrize("context", [2, 33, 256, 1056, 8192])
def test_lengths_that_a_context_holds(context: int) -> None:
    options, usual = options_within(context), BenchmarkOptions()
    assert max(options.prompt_tokens) <= context
    assert max(options.depths) + options.decode_tokens <= context
    if context >= 1056:
        assert options == usual
    if context == 256:
        assert (options.prompt_tokens, options.depths) == ((128, 256), (128, 224))


def test_a_request_survives_the_pipe() -> None:
    assert Request.from_json(REQUEST.to_json()) == REQUEST


def test_an_error_keeps_its_class_and_its_parts(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as raised:
        run_worker(Request("load", str(tmp_path / "none"), "cpu", 1), SilentProgress())
    assert raised.value.exit_code == 5
    assert str(tmp_path / "none") in raised.value.fact
    assert raised.value.next_step


def test_an_error_is_a_message(tmp_path: Path) -> None:
    out = io.StringIO()
    serve(Request("load", str(tmp_path / "none"), "cpu", 1), out)
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["error"]["type"] == "BundleError"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts a script in the place of the worker."""

    def put(code: str) -> None:
        folder = tmp_path / "edgekit" / "benchmark"
        folder.mkdir(parents=True)
        for package in (folder.parent, folder):
            (package / "__init__.py").write_text("")
        lines = "".join(f"    {line}\n" for line in code.splitlines() or ["pass"])
        (folder / "worker.py").write_text(f"def main():\n{lines}")
        monkeypatch.setattr(module.edgekit, "__file__", str(tmp_path / "edgekit" / "__init__.py"))

    return put


def test_progress_is_passed_on(worker: Callable[[str], None]) -> None:
    worker(
        "import json, sys\n"
        "request = json.load(sys.stdin)\n"
        "print(json.dumps({'stage': 'a', 'total': 2, 'unit': 'b'}))\n"
        "print(json.dumps({'advance': 1}))\n"
        "print(json.dumps({'result': request}))\n"
    )
    progress = Recorded()
    assert run_worker(REQUEST, progress)["depths"] == [7]
    assert progress.calls == [("a", 2, "b"), (1,)]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", DoesNotFit, "was killed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", SessionError, "signal SIGILL"),
        ("raise SystemExit(7)", SessionError, "exit code 7"),
        ("import sys; sys.stdin.read(); raise ValueError('odd')", SessionError, "exit code 1: ValueError: odd"),
        ("", SessionError, "exit code 0"),
    ],
)
def test_a_worker_that_dies(code: str, error: type[Exception], words: str, worker: Callable[[str], None]) -> None:
    worker(code)
    with pytest.raises(error, match=words):
        run_worker(REQUEST, SilentProgress())


def test_an_interrupt_ends_the_worker(worker: Callable[[str], None]) -> None:
    """The block ends at once though the worker would go on for a minute."""
    worker("import time; print('{\"advance\": 1}', flush=True); time.sleep(60)")

    class Interrupts(SilentProgress):
        def advance(self, n: int = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_worker(REQUEST, Interrupts())


@pytest.mark.parametrize(("count", "end"), [(2, "result"), (99, "error")])
def test_what_is_opened_to_time_drafts_is_closed(tmp_path: Path, ort_sessions: list[Any], count: int, end: str) -> None:
    bundle, out = str(write_tiny_bundle(tmp_path / "bundle")), io.StringIO()
    request = Request(
        "drafts", bundle, "cpu", 1, draft=bundle, draft_tokens=count, answer_tokens=4, conversations=(("a", ["one"]),)
    )
    serve(request, out)
    assert end in json.loads(out.getvalue().splitlines()[-1])
    assert [each._session is None for each in ort_sessions] == [True, True]
