"""`edgekit embed`, and what other verbs do with an encoder's bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from edgekit.bundle import read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.cli.main import cli
from edgekit.errors import BundleError, PromptError, SessionError
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.layers.pooling import SentenceEncoder
from edgekit.models.registry import encoder_from_checkpoint
from edgekit.progress import SilentProgress
from edgekit.runtime.encoder_session import EncoderSession
from edgekit.runtime.encoder_text import encoder_tokenizer
from edgekit.runtime.session import session_from_bundle
from tests.tiny_encoder import TEXTS, write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its bundle."""
    place = tmp_path_factory.mktemp("encoder")
    checkpoint = open_checkpoint(write_encoder(place / "checkpoint"))
    bundle_from_checkpoint(checkpoint, place / "bundle", ExportOptions(dtype="fp32"), progress=SilentProgress())
    return place


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    """PyTorch's embeddings of TEXTS, each by itself, cut to the model's 40 tokens."""
    model = SentenceEncoder(encoder_from_checkpoint(open_checkpoint(folder / "checkpoint")), "mean", True)
    rows = []
    for tokens in encoder_tokenizer(read_bundle(folder / "bundle")).encode(TEXTS).tokens:
        ids = torch.tensor([tokens])
        rows.append(model(ids, torch.ones_like(ids))[0][0].detach().numpy())
    return np.stack(rows)


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments], input=stdin)


def test_json(folder: Path, expected: np.ndarray) -> None:
    result = run("embed", folder / "bundle", *TEXTS, "--json", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    np.testing.assert_allclose(document["embeddings"], expected, atol=2e-6)
    assert (document["dimensions"], document["cut"], max(document["tokens"])) == (64, [3], 40)
    assert "1 of 5 texts were cut to 40 tokens" in result.stderr


@pytest.mark.parametrize("batch", ["1", "2", "32"])
def test_a_file_of_lines_in_any_batch_size(folder: Path, tmp_path: Path, expected: np.ndarray, batch: str) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    out = tmp_path / "out.npy"
    result = run("embed", folder / "bundle", "--file", tmp_path / "texts.txt", "-o", out, "--batch-size", batch)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}\n"
    found = np.load(out)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_lines_of_stdin_and_lines_of_numbers(folder: Path, expected: np.ndarray) -> None:
    result = run("embed", folder / "bundle", "-q", stdin="\n".join(TEXTS[:3]).encode())
    found = [[float(number) for number in line.split()] for line in result.stdout.splitlines()]
    np.testing.assert_allclose(found, expected[:3], atol=2e-6)
    assert result.stderr == ""


def test_lines_end_at_line_ends_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("a\u2028lamp\x0cb\r\nhome\n".encode())
    result = run("embed", folder / "bundle", "--file", tmp_path / "texts.txt", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["embeddings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("x", "--file", __file__), "not both"),
        (("x", "-o", "a.npy", "--json"), "exclude each other"),
        (("x", "-o", "a.txt"), "end in .npy"),
    ],
)
def test_usage(folder: Path, arguments: tuple[str, ...], fact: str) -> None:
    result = run("embed", folder / "bundle", *arguments)
    assert result.exit_code == 2
    assert fact in result.stderr


def test_blank_and_missing_texts_are_refused(folder: Path, tmp_path: Path) -> None:
    blank = run("embed", folder / "bundle", "a", "  ")
    assert isinstance(blank.exception, PromptError)
    assert "text 2 of 2" in blank.exception.fact
    nothing = run("embed", folder / "bundle", stdin=b"")
    assert isinstance(nothing.exception, PromptError)
    wrong = run("embed", folder / "bundle", stdin=b"\xff\n")
    assert isinstance(wrong.exception, PromptError)
    assert "UTF-8" in wrong.exception.rule


def test_decoders_only(folder: Path, tmp_path: Path) -> None:
    bundle = folder / "bundle"
    (tmp_path / "text").write_text("a")
    for arguments in (
        ("chat", bundle),
        ("run", bundle, "-p", "a"),
        ("bench", bundle),
        ("report", bundle),
        ("build", bundle, "--device", "rtx-4090"),
    ):
        error = run(*arguments).exception
        assert isinstance(error, BundleError), arguments
        assert "needs a decoder" in error.rule
        assert "edgekit embed" in error.next_step
    with pytest.raises(BundleError, match="needs a decoder"):
        session_from_bundle(read_bundle(bundle))


def test_encoders_only(paper_bundle: object) -> None:
    error = run("embed", paper_bundle(), "a").exception  # type: ignore[operator]
    assert isinstance(error, BundleError)
    assert "needs an encoder" in error.rule
    assert "edgekit chat" in error.next_step


def test_parity_eval_and_inspect(folder: Path) -> None:
    bundle = folder / "bundle"
    result = run("parity", bundle, "--threads", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["passed"] is True
    result = run("eval", bundle, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cosine_min"] > 0.999999
    assert found["retrieval_top1"] == 1.0
    assert found["probe_accuracy"] == found["original_probe_accuracy"]
    rows = run("inspect", bundle).stdout
    assert "64 numbers, mean pooling, of length 1; texts of up to 40 tokens" in rows
    assert "cache" not in rows
    assert "KV cache" not in run("inspect", folder / "checkpoint").stdout


@pytest.mark.parametrize(
    "arguments",
    [("parity", "--tokens", "3"), ("parity", "--draft", __file__), ("eval", "--context", "8"), ("eval", "--restart")],
)
def test_options_without_effect_are_refused(folder: Path, arguments: tuple[str, ...]) -> None:
    result = run(arguments[0], folder / "bundle", *arguments[1:])
    assert result.exit_code == 2
    assert "no effect with an encoder" in result.stderr


def test_eval_compares_with_a_bundle_or_a_checkpoint_of_the_same_model_only(folder: Path, tmp_path: Path) -> None:
    same = run("eval", folder / "bundle", "--baseline", folder / "bundle", "--json")
    assert json.loads(same.stdout)["cosine_min"] == pytest.approx(1.0)
    other = write_encoder(tmp_path / "other", num_hidden_layers=1)
    result = run("eval", folder / "bundle", "--against", other)
    assert result.exit_code != 0
    assert "num_hidden_layers is 2" in result.stderr + str(result.exception)


def test_eval_of_a_decoder_still_needs_a_text(paper_bundle: object) -> None:
    result = run("eval", paper_bundle())  # type: ignore[operator]
    assert result.exit_code == 2
    assert "'--text'" in result.stderr


def test_malformed_calls_of_a_session(folder: Path) -> None:
    session = EncoderSession(read_bundle(folder / "bundle"), threads=1)
    ids = np.ones((2, 3), np.int64)
    good = session.forward(ids, ids)
    assert good.shape == (2, 64)
    no_text = np.array([[1, 1, 1], [0, 0, 0]])
    long = np.ones((1, 41), np.int64)
    calls = [(ids[0], ids[0]), (ids.astype(np.int32), ids), (ids * 101, ids), (-ids, ids), (ids, no_text), (long, long)]
    for tokens, mask in calls:
        with pytest.raises(SessionError):
            session.forward(tokens, mask)
    with pytest.raises(SessionError, match="cpu, cuda"):
        EncoderSession(read_bundle(folder / "bundle"), backend="tensorrt")
