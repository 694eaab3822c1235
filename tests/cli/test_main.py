"""The entry point: help without heavy imports, errors as three lines, exit codes."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from edgekit import __version__, errors
from edgekit.cli.main import VerbGroup, cli, main

EDGEKIT = [sys.executable, "-m", "edgekit.cli.main"]
HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "transformers", "numpy", "rich", "tokenizers", "jinja2")


def _edgekit(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EDGEKIT, *arguments], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes the verb `verify` raise the given exception."""

    def replace(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(VerbGroup, "get_command", lambda self, ctx, name: command)

    return replace


def _exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_names_every_verb_with_a_line_of_help() -> None:
    done = _edgekit("--help")
    assert done.returncode == 0
    for verb, help_line in cli.verbs().items():  # type: ignore[attr-defined]
        assert help_line, f"{verb} has no docstring"
        assert re.search(rf"^  {re.escape(verb)} +\S", done.stdout, re.MULTILINE), verb
    assert {"verify", "doctor", "completion"} <= set(cli.verbs())  # type: ignore[attr-defined]
    assert "main" not in cli.verbs()  # type: ignore[attr-defined]


def test_help_imports_nothing_heavy_and_no_verb() -> None:
    code = (
        "import sys\nfrom edgekit.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in sys.modules if m.split('.')[0] in "
        f"{HEAVY!r} or m.startswith('edgekit.cli.') and m != 'edgekit.cli.main'], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Usage: edgekit")
    assert done.stderr.strip() == "[]"


def test_help_starts_in_under_300_ms() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert _edgekit("--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_of_each_verb_imports_no_framework() -> None:
    verbs = list(cli.verbs())  # type: ignore[attr-defined]
    code = (
        "import sys, click\nfrom edgekit.cli.main import cli\n"
        f"for verb in {verbs!r}:\n"
        "    assert cli.main([verb, '--help'], standalone_mode=False) in (0, None)\n"
        "    heavy = [m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'onnx', 'onnxruntime', 'tensorrt', 'transformers')]\n"
        "    assert not heavy, (verb, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert _edgekit("--version").stdout.strip() == f"edgekit, version {__version__}"


def test_mistyped_verb_names_the_nearest() -> None:
    done = _edgekit("verifi", "somewhere")
    assert done.returncode == 2
    assert "No such command 'verifi'. Did you mean 'verify'?" in done.stderr


def test_unknown_verb_lists_all() -> None:
    done = _edgekit("xyzzy")
    assert done.returncode == 2
    assert "The commands are:" in done.stderr
    assert "verify" in done.stderr


@pytest.mark.parametrize("name", ["main", "__init__", "../cli/verify", "verify.py", "."])
def test_files_that_are_no_verb_are_not_run(name: str) -> None:
    assert _edgekit(name).returncode == 2


def test_mistyped_option_names_the_nearest() -> None:
    done = _edgekit("verify", "--jsn", "x")
    assert done.returncode == 2
    assert "--json" in done.stderr


def test_options_are_taken_from_the_environment(tmp_path: Path) -> None:
    environment = {**os.environ, "EDGEKIT_DOCTOR_AS_JSON": "1"}
    assert _edgekit("doctor", env=environment).stdout.startswith("{")


def test_error_is_three_lines_and_no_traceback(tmp_path: Path) -> None:
    done = _edgekit("verify", str(tmp_path / "nowhere"))
    assert done.returncode == 5
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("error: a bundle is a directory")
    assert lines[1] == f"  found: {tmp_path / 'nowhere'} does not exist"
    assert lines[2].startswith("  next: ")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = _edgekit("--debug", "verify", str(tmp_path / "nowhere"))
    assert done.returncode == 5
    assert "Traceback (most recent call last)" in done.stderr
    assert "\nerror: " in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EdgekitError("rule"), 1),
        (errors.ParityFailed("rule"), 3),
        (errors.DoesNotFit("rule"), 4),
        (errors.BundleError("rule"), 5),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 4),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4),
        (OSError(errno.ENOSPC, "No space left on device", "weights"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "weights"), 1),
        (ZeroDivisionError("division by zero"), 1),
        (click.UsageError("wrong"), 2),
    ],
)
def test_exit_code_of_each_failure(
    failing: Callable[[BaseException], None], error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert _exit_code("verify") == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.strip()
    assert "Traceback" not in printed.err


def test_system_errors_name_the_file(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(PermissionError(errno.EACCES, "Permission denied", "/x/weights"))
    _exit_code("verify")
    assert "found: Permission denied: /x/weights" in capsys.readouterr().err


def test_a_defect_says_how_to_see_more(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("long " * 1000))
    assert _exit_code("verify") == 1
    printed = capsys.readouterr().err
    assert "ZeroDivisionError: long" in printed
    assert "edgekit --debug" in printed
    assert len(printed) < 1000


def test_empty_parts_of_an_error_are_left_out(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(errors.PromptError("a prompt is not empty"))
    _exit_code("verify")
    assert capsys.readouterr().err == "error: a prompt is not empty\n"


def test_a_verb_that_returns_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> str:
        return "text"

    monkeypatch.setattr(VerbGroup, "get_command", lambda self, ctx, name: command)
    assert _exit_code("verify") == 0


def test_full_disk_behind_stdout_is_reported() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*EDGEKIT, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen([*EDGEKIT, "completion", "bash"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == b""


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "wait.py").write_text(
        "import time, click\n"
        "@click.command()\n"
        "def command():\n"
        "    '''Wait.'''\n"
        "    click.echo('ready')\n"
        "    time.sleep(60)\n"
    )
    code = (
        "import sys; from pathlib import Path; from edgekit.cli import main as m\n"
        f"sys.path.insert(0, {str(tmp_path)!r}); import wait\n"
        "m.VerbGroup.get_command = lambda self, ctx, name: wait.command\n"
        "m.main(['wait'])"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        printed = process.stderr.read()
    assert "interrupted" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_completes_verbs(shell: str) -> None:
    if shell == "bash":
        script = _edgekit("completion", shell)
        assert script.returncode == 0
        assert "_EDGEKIT_COMPLETE" in script.stdout
    environment = {**os.environ, "_EDGEKIT_COMPLETE": f"{shell}_complete"}
    environment |= {"COMP_WORDS": "edgekit ver" if shell != "fish" else "edgekit", "COMP_CWORD": "1"}
    environment |= {"COMP_CWORD": "ver"} if shell == "fish" else {}
    assert "verify" in _edgekit(env=environment).stdout


def test_verbs_are_found_by_file(tmp_path: Path) -> None:
    (tmp_path / "decorated.py").write_text("@x\ndef command():\n    '''Do it.\n\n    More.'''\n")
    (tmp_path / "assigned_verb.py").write_text("'''Assigned.'''\ncommand = make()\n")
    (tmp_path / "helper.py").write_text("'''No verb.'''\ndef table(): pass\n")
    group = VerbGroup("nowhere", tmp_path)
    assert group.verbs() == {"assigned-verb": "Assigned", "decorated": "Do it"}
