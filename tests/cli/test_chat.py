"""`edgekit chat`: from pipes, and at a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.chat.conversation import Conversation
from edgekit.cli.main import main
from tests.chat.tiny_bundle import write_tiny_bundle

COMMAND = [sys.executable, "-m", "edgekit.cli.main", "chat"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("chat") / "bundle"))


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a chat with a pipe in this process, and gives exit code, stdout and stderr."""

    def call(bundle: Path, *arguments: str, lines: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        with pytest.raises(SystemExit) as exit_:
            main(["chat", str(bundle), *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, err

    return call


def saved(chat: Any, bundle: Bundle, path: Path, *arguments: str, lines: str) -> list[str]:
    """What is said in a chat."""
    code, _, err = chat(bundle.path, *arguments, lines=f"{lines}\n/save {path}\n")
    assert code == 0, err
    return [message.content for message in Conversation.load(path).messages]


def test_every_line_is_a_question_and_only_answers_go_to_stdout(chat: Any, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    code, out, err = chat(bundle.path, "-n", "5", "--temperature", "0", lines=f"one\ntwo\n/stats\n/save {path}\n")
    assert code == 0
    said = [message.content for message in Conversation.load(path).messages]
    assert said[0::2] == ["one", "two"]
    assert out == "".join(answer.removesuffix("\n") + "\n" for answer in said[1::2])
    assert "reused" in err
    assert "4 messages" in err


def test_a_turn_of_several_lines(chat: Any, bundle: Bundle, tmp_path: Path) -> None:
    said = saved(chat, bundle, tmp_path / "talk.json", "-n", "2", lines='one\\\ntwo\n"""\nx\n\ny\n"""')
    assert said[0::2] == ["one\ntwo", "x\n\ny"]


def test_model_and_draft_model_are_closed(chat: Any, bundle: Bundle, ort_sessions: list[Any]) -> None:
    assert chat(bundle.path, "-n", "3", "--draft", str(bundle.path), lines="one\n")[0] == 0
    assert [each._session is None for each in ort_sessions] == [True, True]


def test_stats_tell_of_drafts(chat: Any, bundle: Bundle) -> None:
    """A model that drafts for itself is always right; each answer after the first goes on with what was learned."""
    arguments = ["-n", "20", "--temperature", "0", "--draft", str(bundle.path), "--draft-tokens", "3"]
    code, out, err = chat(bundle.path, *arguments, lines="one\n/stats\ntwo\n/stats\n")
    assert code == 0
    assert "model: accepted by position 100% 100% 100%" in err
    assert "steps by tokens drafted" in err
    assert "all answers so far: " in err
    plain, plain_out, plain_err = chat(bundle.path, *arguments[:4], "--draft", "off", lines="one\n/stats\ntwo\n")
    assert (plain, plain_out) == (0, out)
    assert "draft" not in plain_err


def test_quit_ends_it(chat: Any, bundle: Bundle) -> None:
    assert chat(bundle.path, lines="/quit\none\n") == (0, "", "")


def test_an_unknown_command_is_not_a_question(chat: Any, bundle: Bundle) -> None:
    code, out, err = chat(bundle.path, lines="/qiut\n")
    assert (code, out) == (0, "")
    assert "/quit" in err


def test_a_conversation_goes_on_from_a_file(chat: Any, bundle: Bundle, tmp_path: Path) -> None:
    greedy = ["-n", "5", "--temperature", "0"]
    whole = saved(chat, bundle, tmp_path / "whole.json", *greedy, lines="one\ntwo")
    saved(chat, bundle, tmp_path / "half.json", *greedy, lines="one")
    rest = saved(chat, bundle, tmp_path / "rest.json", *greedy, "--load", str(tmp_path / "half.json"), lines="two")
    assert rest == whole


def test_the_system_prompt_is_read(chat: Any, bundle: Bundle, tmp_path: Path) -> None:
    greedy = ["-n", "12", "--temperature", "0"]
    plain = saved(chat, bundle, tmp_path / "a.json", *greedy, lines="one")
    given = saved(chat, bundle, tmp_path / "b.json", *greedy, "--system", "Be brief.", lines="one")
    typed = saved(chat, bundle, tmp_path / "c.json", *greedy, lines="/system Be brief.\none")
    assert given == typed != plain
    assert Conversation.load(tmp_path / "b.json").system == "Be brief."


def test_sampling_is_repeatable_and_taken_from_the_bundle(chat: Any, tmp_path: Path) -> None:
    one_token = {"do_sample": True, "temperature": 1.0, "top_k": 1}
    bundle = read_bundle(write_tiny_bundle(tmp_path / "bundle", generation_config=one_token))
    greedy = saved(chat, bundle, tmp_path / "a.json", "-n", "9", "--temperature", "0", lines="one")
    assert saved(chat, bundle, tmp_path / "b.json", "-n", "9", lines="one") == greedy, "of one token, one is chosen"
    wild = ["-n", "9", "--temperature", "3", "--top-k", "0", "--seed"]
    first = saved(chat, bundle, tmp_path / "c.json", *wild, "1", lines="one")
    assert first != greedy
    assert saved(chat, bundle, tmp_path / "d.json", *wild, "1", lines="one") == first
    assert saved(chat, bundle, tmp_path / "e.json", *wild, "2", lines="one") != first


def test_a_full_context_drops_the_oldest_messages_with_notice(chat: Any, bundle: Bundle) -> None:
    questions = "".join(f"question {i}\n" for i in range(8))
    arguments = ["-n", "8", "--max-context", "128"]
    code, _, err = chat(bundle.path, *arguments, lines=questions)
    assert code == 0
    assert "oldest messages were dropped" in err
    code, _, err = chat(bundle.path, *arguments, "--on-full", "stop", lines=questions)
    assert code == 0
    assert "must fit into the context" in err
    assert "dropped" not in err


@pytest.mark.parametrize(
    ("template", "arguments", "code", "words"),
    [
        (None, [], 1, "--template FILE"),
        ("{% if", [], 1, "line 1"),
        ("x", ["--load", "absent.json"], 1, "absent.json"),
        ("x", ["--max-context", "9999"], 1, "9999"),
        ("x", ["--temperature", "0", "--top-p", "0.5"], 2, "no effect"),
    ],
)
def test_mistakes_are_told(
    chat: Any, tmp_path: Path, template: str | None, arguments: list[str], code: int, words: str
) -> None:
    path = write_tiny_bundle(tmp_path / "bundle", template=template)
    got, out, err = chat(path, *arguments, lines="one\n")
    assert (got, out) == (code, "")
    assert words in err


def test_a_template_that_refuses_ends_no_chat(chat: Any, tmp_path: Path) -> None:
    template = "{% if messages[-1].content == 'bad' %}{{ raise_exception('not that') }}{% endif %}ok"
    path = write_tiny_bundle(tmp_path / "bundle", template=template)
    code, out, err = chat(path, "-n", "2", lines="bad\ngood\n")
    assert code == 0
    assert "not that" in err
    assert out.count("\n") >= 1


class Typist:
    """A chat at a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.controller, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment,
            start_new_session=True,
        )
        os.close(terminal)
        self.screen = ""

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """What appears until the pattern does."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.screen)):
            ready, _, _ = select.select([self.controller], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} did not appear in {self.screen!r}"
            data = os.read(self.controller, 65536).decode(errors="replace")
            if "\x1b[6n" in data:  # where is the cursor?
                os.write(self.controller, b"\x1b[1;1R")
            self.screen += data
        seen, self.screen = self.screen[: match.end()], self.screen[match.end() :]
        return seen

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def leave(self) -> int:
        """Wait for the end; what is written meanwhile is read, or the process could not write it."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.controller], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self.controller, 65536).decode(errors="replace")
                except OSError:
                    break
        return self.process.wait(timeout=10)


@pytest.fixture
def at_terminal(tmp_path: Path) -> Iterator[Any]:
    """Starts a chat whose answers end only where they are cut."""
    path = write_tiny_bundle(tmp_path / "endless", endless=True, capacity_limit=1 << 16)
    typists: list[Typist] = []

    def start(*arguments: str) -> Typist:
        typists.append(Typist(str(path), *arguments))
        return typists[-1]

    yield start
    for typist in typists:
        if typist.process.poll() is None:
            typist.process.kill()
            typist.process.wait()
        os.close(typist.controller)


def test_a_chat_at_a_terminal(at_terminal: Any) -> None:
    typist = at_terminal("-n", "4")
    typist.wait_for("tiny .* /help lists the commands")
    typist.wait_for(">")
    typist.type("hello\r")
    typist.wait_for("max-new-tokens was reached")
    typist.wait_for(">")
    typist.type("/stats\r")
    typist.wait_for("2 messages")
    typist.wait_for(">")
    typist.type("\x03")
    typist.wait_for("Ctrl-D or /quit leaves")
    typist.wait_for(">")
    typist.type("\x04")
    assert typist.leave() == 0


@pytest.mark.parametrize("arguments", [[], ["--plain"]])
def test_ctrl_c_stops_an_answer_and_not_the_chat(at_terminal: Any, arguments: list[str]) -> None:
    typist = at_terminal("-n", "100000", *arguments)
    typist.wait_for(">")
    typist.type("hello\r")
    typist.wait_for(r"hello[\s\S]{200}")
    typist.process.send_signal(signal.SIGINT)
    typist.wait_for("stopped")
    typist.wait_for(">")
    typist.type("/stats\r")
    typist.wait_for("2 messages")
    typist.wait_for(">")
    typist.type("/quit\r")
    assert typist.leave() == 0
