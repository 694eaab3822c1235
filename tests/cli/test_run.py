"""`edgekit run`, from the command line to the exit code, on a tiny model with random words."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.chat.tokenizer import tokenizer_from_bundle
from edgekit.cli.main import main
from edgekit.runtime.session import session_from_bundle
from tests.chat.tiny_bundle import write_tiny_bundle

COMMAND = [sys.executable, "-m", "edgekit.cli.main"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_tiny_bundle(tmp_path_factory.mktemp("run") / "bundle"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def edgekit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line in this process: edgekit("run", ..., stdin=bytes or None for a terminal)."""

    def call(*arguments: object, stdin: bytes | None = None) -> Result:
        stream: Any = Terminal() if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        assert isinstance(exit_.value.code, int)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(exit_.value.code, out, err)

    return call


def greedy(bundle: Bundle, prompt: str, count: int) -> list[int]:
    """The most likely token each time, from a session that starts afresh for each."""
    tokens = tokenizer_from_bundle(bundle).encode(prompt)
    chosen: list[int] = []
    for _ in range(count):
        session = session_from_bundle(bundle, threads=1)
        chosen.append(int(session.forward(np.array([[*tokens, *chosen]]))[0, -1].argmax()))
    return chosen


def report(edgekit: Any, bundle: Bundle, *arguments: object, **options: Any) -> dict[str, Any]:
    result = edgekit("run", bundle.path, "--json", *arguments, **options)
    assert result.code == 0, result.err
    document: dict[str, Any] = json.loads(result.out)
    return document


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path, "--prompt", "hello", "-n", "6")
    tokenizer = tokenizer_from_bundle(bundle)
    chatml = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert result.code == 0
    assert result.out == tokenizer.decode(greedy(bundle, chatml, 6)).rstrip("�\n") + "\n"
    assert "6 generated" in result.err
    assert "--max-new-tokens was reached" in result.err


def test_quiet_leaves_only_what_must_be_known(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path, "--prompt", "hello", "-n", "6", "-q")
    assert result.err == "cut: --max-new-tokens was reached\n"


def test_json(edgekit: Any, bundle: Bundle) -> None:
    document = report(edgekit, bundle, "--prompt", "hello", "--raw", "-n", "8")
    assert document["tokens"] == greedy(bundle, "hello", 8)
    assert document["finish_reason"] == "length"
    assert document["statistics"]["generated_tokens"] == 8
    assert document["statistics"]["prompt_tokens"] == len(tokenizer_from_bundle(bundle).encode("hello"))
    assert document["text"] == tokenizer_from_bundle(bundle).decode(document["tokens"]).rstrip("�")


def test_stream_json(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path, "--prompt", "hello", "-n", "8", "--stream-json")
    *pieces, last = [json.loads(line) for line in result.out.splitlines()]
    assert [piece["token"] for piece in pieces] == last["tokens"]
    assert last["text"].startswith("".join(piece["text"] for piece in pieces))
    assert last["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b"hello", "hello"),
        (b"hello\n", "hello"),
        (b"hello\r\n", "hello"),
        (b"a\n\nb\n\n", "a\n\nb\n"),
        ("日本 🙂\n".encode(), "日本 🙂"),
    ],
)
def test_the_prompt_comes_from_a_pipe_or_a_file(
    edgekit: Any, bundle: Bundle, tmp_path: Path, data: bytes, prompt: str
) -> None:
    (tmp_path / "prompt.txt").write_bytes(data)
    want = report(edgekit, bundle, "--raw", "-n", "5", "--prompt", prompt)["tokens"]
    assert report(edgekit, bundle, "--raw", "-n", "5", stdin=data)["tokens"] == want
    assert report(edgekit, bundle, "--raw", "-n", "5", "--prompt-file", tmp_path / "prompt.txt")["tokens"] == want
    assert report(edgekit, bundle, "--raw", "-n", "5", "--prompt-file", "-", stdin=data)["tokens"] == want


def test_the_system_prompt_and_another_template_are_used(edgekit: Any, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}|{{ messages[1].content }}|{{ bos_token }}")
    got = report(edgekit, bundle, "--system", "S", "--prompt", "hello", "--template", tmp_path / "t.jinja", "-n", "5")
    assert got["tokens"] == greedy(bundle, "S|hello|<|im_start|>", 5)


def test_the_first_token_is_put_before_a_raw_prompt_where_the_manifest_says_so(edgekit: Any, tmp_path: Path) -> None:
    with_bos = read_bundle(write_tiny_bundle(tmp_path / "bos", add_bos=True))
    raw = report(edgekit, with_bos, "--raw", "--prompt", "hello", "-n", "5")
    assert raw["tokens"] == greedy(with_bos, "<|im_start|>hello", 5)
    templated = report(edgekit, with_bos, "--prompt", "hello", "-n", "5")
    assert templated["tokens"] == greedy(with_bos, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", 5)


def test_without_a_temperature_the_answer_is_the_same_each_time(edgekit: Any, bundle: Bundle) -> None:
    answers = {edgekit("run", bundle.path, "--prompt", "hello", "-n", "20").out for _ in range(2)}
    assert len(answers) == 1


def test_a_seed_repeats_an_answer_and_its_absence_is_reported(edgekit: Any, bundle: Bundle) -> None:
    sampled = ["--prompt", "hello", "-n", "20", "--temperature", "2.0"]
    first = report(edgekit, bundle, *sampled, "--seed", "7")
    assert report(edgekit, bundle, *sampled, "--seed", "7")["tokens"] == first["tokens"]
    assert report(edgekit, bundle, *sampled, "--seed", "8")["tokens"] != first["tokens"]
    drawn = report(edgekit, bundle, *sampled)
    again = report(edgekit, bundle, *sampled, "--seed", drawn["statistics"]["seed"])
    assert again["tokens"] == drawn["tokens"]


def test_options_come_from_the_environment_too(edgekit: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_RUN_MAX_NEW_TOKENS", "3")
    assert len(report(edgekit, bundle, "--prompt", "hello")["tokens"]) == 3


def test_stop_strings(edgekit: Any, bundle: Bundle) -> None:
    whole = report(edgekit, bundle, "--prompt", "hello", "-n", "30")["text"]
    stop = whole[6:9]
    assert len(stop) == 3
    stopped = report(edgekit, bundle, "--prompt", "hello", "-n", "30", "--stop", "no such text", "--stop", stop)
    assert stopped["finish_reason"] == "stop-string"
    assert stopped["text"] == whole[: whole.index(stop)]


def test_every_filter_reaches_the_sampler(edgekit: Any, bundle: Bundle) -> None:
    """Each of these leaves one token, so that chance has no say."""
    want = report(edgekit, bundle, "--prompt", "hello", "-n", "10")["tokens"]
    for option in (["--top-k", "1"], ["--top-p", "0.000001"], ["--min-p", "1"]):
        got = report(edgekit, bundle, "--prompt", "hello", "-n", "10", "--temperature", "1", "--seed", "1", *option)
        assert got["tokens"] == want
    penalised = report(edgekit, bundle, "--prompt", "hello", "-n", "10", "--repetition-penalty", "1000000")["tokens"]
    assert len(set(penalised)) == 10


def test_the_context_can_be_shortened(edgekit: Any, bundle: Bundle) -> None:
    arguments = ["run", bundle.path, "--raw", "--prompt", "abcdefgh", "--max-context", "12", "-q"]
    stopped = edgekit(*arguments)
    assert stopped.code == 0
    assert "the context is full" in stopped.err
    dropped = edgekit(*arguments, "--on-full", "truncate-oldest", "-n", "10")
    assert dropped.code == 0
    assert "oldest tokens were dropped" in dropped.err
    refused = edgekit(*arguments, "--on-full", "error", "-n", "10")
    assert refused.code == 1
    assert "8 tokens" in refused.err
    assert "10 are to be generated" in refused.err
    assert refused.out == ""


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path, "--raw", "--prompt", "abcdefgh", "--max-context", "5")
    assert result.code == 1
    assert "8 tokens, the context holds 5" in result.err
    assert "--on-full truncate-oldest" in result.err
    result = edgekit("run", bundle.path, "--raw", "--prompt", "abcdefgh" * 400)
    assert "3200 tokens, the context holds 2048" in result.err


def test_a_context_longer_than_the_bundle_allows_is_refused(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path, "--prompt", "hello", "--max-context", "2049")
    assert result.code == 1
    assert "2049" in result.err
    assert "2048" in result.err


@pytest.mark.parametrize("arguments", [["--prompt", ""], ["--prompt", " \n "], ["--prompt-file", "-"], []])
def test_an_empty_prompt_is_refused(edgekit: Any, bundle: Bundle, arguments: list[str]) -> None:
    result = edgekit("run", bundle.path, *arguments, stdin=b"")
    assert result.code == 1
    assert "a prompt must hold text" in result.err


def test_no_prompt_at_a_terminal_does_not_wait(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path)
    assert result.code == 1
    assert "--prompt TEXT" in result.err


def test_a_prompt_that_is_no_text_is_refused(edgekit: Any, bundle: Bundle) -> None:
    result = edgekit("run", bundle.path, stdin=b"abc\xff")
    assert result.code == 1
    assert "byte 3 of stdin" in result.err


def test_a_missing_template_is_refused_and_raw_needs_none(edgekit: Any, tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "bare", template=None)
    result = edgekit("run", path, "--prompt", "hello")
    assert result.code == 1
    assert "--template FILE" in result.err
    assert "--raw" in result.err
    assert edgekit("run", path, "--prompt", "hello", "--raw", "-n", "2").code == 0


def test_a_broken_template_is_refused_with_its_line(edgekit: Any, tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "broken", template="ok\n{% if %}")
    result = edgekit("run", path, "--prompt", "hello")
    assert result.code == 1
    assert "line 2" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--prompt", "a", "--prompt-file", "b"], 2, "exclude"),
        (["--prompt", "a", "--raw", "--system", "b"], 2, "--raw"),
        (["--prompt", "a", "--json", "--stream-json"], 2, "exclude"),
        (["--prompt", "a", "--top-p", "0.9"], 2, "no effect at temperature 0"),
        (["--prompt", "a", "--backend", "npu"], 2, "npu"),
        (["--prompt", "a", "-n", "0"], 2, "0"),
        (["--prompt", "a", "--temperature", "-1"], 1, "-1"),
        (["--prompt", "a", "--temperature", "1", "--top-p", "2"], 1, "top-p"),
        (["--prompt", "a", "--stop", ""], 1, "stop string"),
        (["--prompt-file", "absent.txt"], 1, "absent.txt"),
        (["--prompt", "a", "--template", "absent.jinja"], 1, "absent.jinja"),
    ],
)
def test_mistakes_are_told(edgekit: Any, bundle: Bundle, arguments: list[str], code: int, words: str) -> None:
    result = edgekit("run", bundle.path, *arguments)
    assert result.code == code
    assert words in result.err
    assert result.out == ""


def test_a_backend_that_is_not_here_is_refused(edgekit: Any, bundle: Bundle) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    result = edgekit("run", bundle.path, "--prompt", "a", "--backend", "cuda")
    assert result.code == 1
    assert "CPUExecutionProvider" in result.err
    assert "edgekit[cuda]" in result.err


@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_a_bundle_that_is_not_whole_is_refused(edgekit: Any, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bundle"
    if damage == "truncated":
        write_tiny_bundle(path)
        (path / "model.onnx").write_bytes((path / "model.onnx").read_bytes()[:-1])
    result = edgekit("run", path, "--prompt", "a")
    assert result.code == 5
    assert str(path) in result.err


def test_nothing_that_a_pipe_does_not_need_is_loaded(bundle: Bundle) -> None:
    code = (
        "import sys\nfrom edgekit.cli.main import main\ntry:\n"
        f"    main(['run', {str(bundle.path)!r}, '--prompt', 'hello', '-n', '2'])\nexcept SystemExit as done:\n"
        "    assert done.code == 0\nprint(' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "onnx", "transformers", "rich", "prompt_toolkit", "gguf", "safetensors"}


def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "endless", endless=True)
    run = subprocess.Popen(
        [*COMMAND, "run", str(bundle), "--prompt", "hello", "-n", "100000", "--on-full", "truncate-oldest"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.read(20)
    run.stdout.close()
    assert run.wait(timeout=60) == 1
    assert b"Traceback" not in run.stderr.read()
    run.stderr.close()


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_the_text_and_keeps_what_there_is(tmp_path: Path, as_json: bool) -> None:
    bundle = write_tiny_bundle(tmp_path / "endless", endless=True)
    arguments = ["--prompt", "hello", "-n", "1000000", "--on-full", "truncate-oldest"]
    run = subprocess.Popen(
        [*COMMAND, "run", str(bundle), *arguments, *(["--stream-json"] if as_json else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what is read ahead here would be lost to communicate()
    )
    assert run.stdout is not None
    started = run.stdout.read(30)
    run.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    out, err = run.communicate(timeout=60)
    assert time.monotonic() < deadline
    out = started + out
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert b"interrupted" in err
    assert out.endswith(b"\n")
    if as_json:
        last = json.loads(out.splitlines()[-1])
        assert last["finish_reason"] == "interrupted"
        assert len(last["tokens"]) == len(out.splitlines()) - 1


def test_help_states_the_defaults(edgekit: Any) -> None:
    text = " ".join(edgekit("run", "--help").out.split())
    assert "Without --temperature the most likely token is always taken" in text
    assert "[default: 256" in text


def test_a_bundle_without_an_engine_cannot_run_on_tensorrt(edgekit: Any, bundle: Bundle) -> None:
    done = edgekit("run", bundle.path, "-p", "one", "--backend", "tensorrt")
    assert done.code == 5
    assert done.out == ""
    assert "needs an engine in the bundle" in done.err
    assert f"edgekit build {bundle.path} --device" in done.err


def test_drafts_change_no_answer_and_are_told(edgekit: Any, bundle: Bundle) -> None:
    text = "one two three " * 8
    plain = report(edgekit, bundle, "--prompt", text, "--raw", "-n", "40", "--draft", "off")
    assert plain["statistics"]["draft"] is None
    for choice in ((), ("--draft", "auto"), ("--draft", "ngram", "--draft-tokens", "3"), ("--draft", bundle.path)):
        drafted = report(edgekit, bundle, "--prompt", text, "--raw", "-n", "40", *choice)
        assert drafted["tokens"] == plain["tokens"]
        statistics = drafted["statistics"]["draft"]
        assert statistics["steps"] >= statistics["plain_steps"]
        assert statistics["tokens"] >= 39
    # The draft model is the model itself, so it is always right.
    assert statistics["sources"]["model"]["accepted"] == statistics["sources"]["model"]["drafted"]
    result = edgekit("run", bundle.path, "--prompt", text, "-n", "40", "--draft", bundle.path, "--draft-tokens", "3")
    assert "tokens a step" in result.err


def test_model_and_draft_model_are_closed(edgekit: Any, bundle: Bundle, ort_sessions: list[Any]) -> None:
    assert edgekit("run", bundle.path, "--prompt", "one", "-n", "3", "--draft", bundle.path).code == 0
    assert [each._session is None for each in ort_sessions] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--draft", "cp"], 1, "edgekit draft train"),
        (["--draft", "eagle"], 2, "there is no directory eagle"),
        (["--draft", "off", "--draft-tokens", "2"], 2, "no effect with --draft off"),
        (["--draft-tokens", "0"], 2, "0"),
        (["--draft", "."], 5, "manifest.json"),
    ],
)
def test_drafts_that_cannot_be_made(
    edgekit: Any, bundle: Bundle, arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    result = edgekit("run", bundle.path, "--prompt", "hello", *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
