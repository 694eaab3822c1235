"""The verbs on the trained T6 of exports/t6-small: native operators and function bodies give the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.main import cli
from tests.tools import no_native_compiler

CHECKPOINT = Path(__file__).parents[2] / "exports/t6-small"
PROMPT = "The Congress of the United States"
#: From the address of 1862 (public domain).
TEXT = (
    "The dogmas of the quiet past are inadequate to the stormy present. The occasion is piled high with difficulty, "
    "and we must rise with the occasion. As our case is new, so we must think anew and act anew. We must disenthrall "
    "ourselves, and then we shall save our country. Fellow-citizens, we can not escape history. We of this Congress "
    "and this Administration will be remembered in spite of ourselves. No personal significance or insignificance can "
    "spare one or another of us. The fiery trial through which we pass will light us down in honor or dishonor to the "
    "latest generation."
)
#: Numbers per token in all five layers: (R_K + R_V)(heads + head size), and what others of its size would cache.
OWN = 5 * (2 + 2) * (6 + 48)
OTHERS = {"MHA": 5 * 2 * 6 * 48, "GQA with 2 key heads": 5 * 2 * 2 * 48, "MQA": 5 * 2 * 48}

Verb = Callable[..., Result]


def verb(*arguments: object, stdin: str | None = None) -> Result:
    """Run a command line that is to succeed."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == 0, f"{arguments}: {result.exception!r} {result.stderr}"
    return result


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of the form for ONNX Runtime per type of weights, made by `edgekit export`."""
    if reason := no_native_compiler():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("t6-small")
    for dtype in ("fp32", "int8"):
        verb("export", CHECKPOINT, "-o", folder / dtype, "--dtype", dtype)
    return {dtype: folder / dtype for dtype in ("fp32", "int8")}


@pytest.fixture(scope="module")
def proven(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `edgekit parity` reports for each bundle, in which it is kept."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text(f"{PROMPT}\n%%\nCall me Ishmael.\n")
    arguments = ("--prompts", prompts, "--tokens", 16, "--threads", 1, "--json")
    return {dtype: json.loads(verb("parity", path, *arguments).stdout) for dtype, path in bundles.items()}


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_parity(dtype: str, proven: dict[str, dict[str, Any]]) -> None:
    report = proven[dtype]
    assert report["passed"]
    caches = {stage["name"] for stage in report["stages"] if stage["name"].startswith("cache.")}
    assert caches == {f"cache.{i}.{part}_{which}" for i in range(5) for part in ("key", "value") for which in "ab"}
    assert {stage["mode"] for stage in report["stages"]} == {"prefill", "chunked", "decode", "runtime"}


def test_parity_shows_factors_as_keys_and_values(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPT)
    table = verb("parity", bundles["fp32"], "--prompts", tmp_path / "prompts.txt", "--tokens", 2, "--threads", 1).stdout
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line.endswith(" ok")}
    for layer in "01234":
        numbers = [float(cell) for cell in rows[layer][1:7]]
        assert all(cosine > 0.999 for cosine in numbers[::2])
        assert all(0 < error < 1e-2 for error in numbers[1::2])


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_greedy_text_does_not_depend_on_how_operators_run(dtype: str, bundles: dict[str, Path]) -> None:
    arguments = ("--raw", "-p", PROMPT, "-n", 24, "--threads", 1, "--json", "-q")
    answers = {
        operators: json.loads(verb("run", bundles[dtype], *arguments, "--operators", operators).stdout)
        for operators in ("native", "functions")
    }
    assert len(answers["native"]["tokens"]) == 24
    assert len(set(answers["native"]["tokens"])) > 5
    assert answers["native"]["tokens"] == answers["functions"]["tokens"]
    assert answers["native"]["text"] == answers["functions"]["text"]


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_perplexity_does_not_depend_on_how_operators_run(
    dtype: str, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.evaluate.progress_file.cache_dir", lambda: tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = ("--text", tmp_path / "text.txt", "--context", 64, "--threads", 1, "--json")
    found = {
        operators: json.loads(verb("eval", bundles[dtype], *arguments, "--operators", operators).stdout)
        for operators in ("native", "functions")
    }
    assert found["native"]["tokens"] > 100
    # It has learnt prose: knowing nothing would give 4096.
    assert 20 < found["native"]["perplexity"] < 700
    assert found["native"]["perplexity"] == pytest.approx(found["functions"]["perplexity"], rel=1e-3)


@pytest.mark.parametrize("operators", ["native", "functions"])
def test_bench(operators: str, bundles: dict[str, Path], proven: dict[str, dict[str, Any]]) -> None:
    assert proven["int8"]["passed"]
    arguments = ("--prompt-tokens", 16, "--depth", 16, "--decode-tokens", 4, "--repetitions", 1, "--threads", 1)
    report = json.loads(verb("bench", bundles["int8"], *arguments, "--operators", operators, "--json").stdout)
    assert report["parity"] is True
    how = {"native": "TPAAttention native", "functions": "TPAAttention as standard operators, as asked"}
    assert report["session"].endswith(how[operators])
    weights = (bundles["int8"] / "model.onnx.data").stat().st_size
    (decode,) = report["decodes"]
    assert decode["roofline"]["bytes_per_token"] == weights + (16 + 4 // 2) * OWN * 4
    assert decode["tokens_per_s"]["median"] > 0


def test_chat_from_a_pipe_says_what_run_says(bundles: dict[str, Path]) -> None:
    options = ("-n", 12, "--threads", 1, "--operators", "native", "--temperature", 0)
    said = verb("chat", bundles["fp32"], *options, stdin=f"{PROMPT}\n").stdout
    assert len(said.split()) > 3
    assert said.strip() == verb("run", bundles["fp32"], "-p", PROMPT, *options).stdout.strip()


def test_inspect_shows_the_cache_beside_those_of_others(bundles: dict[str, Path]) -> None:
    def shown(size: int) -> str:
        rest = ", ".join(f"{name} {count * size:,} ({OWN / count:.2f} of it)" for name, count in OTHERS.items())
        return f"{OWN * size:,} bytes per token; {rest}"

    rows = dict(line.split("  ", 1) for line in verb("inspect", CHECKPOINT).stdout.splitlines())
    assert rows["KV cache float16"].strip() == shown(2)
    assert rows["KV cache float32"].strip() == shown(4)
    text = verb("inspect", bundles["fp32"]).stdout
    assert shown(4) in text
    assert "TPAAttention version 1, 5 nodes" in text
    cache = json.loads(verb("inspect", bundles["int8"], "--json").stdout)["cache"]
    assert cache["bytes_per_token_of"] == {name: 4 * count for name, count in OTHERS.items()}
