"""`edgekit draft train` as a whole, on a tiny chat model: text to file, stopped and resumed, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.main import cli
from edgekit.draft import features
from edgekit.draft import train as training
from edgekit.draft.head_file import read_heads
from tests.parity.tiny_models import write_checkpoint

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUICK = "--tokens 2 --rank 2 --vocabulary 64 --length 128 --epochs 1 --single-epochs 1 --threads 1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("talker") / "model", "llama", num_hidden_layers=3)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def train(checkpoint: Path, tmp_path: Path) -> Callable[..., Result]:
    text = tmp_path / "text.txt"
    text.write_text("hello world, he said; and the world said hello. " * 60)

    def run(*more: str, given: bool = True, name: str = "h.safetensors") -> Result:
        words = ["draft", "train", str(checkpoint), "-o", str(tmp_path / name), *QUICK.split()]
        return CliRunner().invoke(
            cli, [*words, *(["--text", str(text), "--positions", "0"] if given else ["--positions", "2000"]), *more]
        )

    return run


def test_a_given_text_becomes_heads(train: Callable[..., Result], tmp_path: Path) -> None:
    result = train("--json")
    assert result.exit_code == 0, result.output
    found = read_heads(tmp_path / "h.safetensors")
    assert (found.heads.config.tokens, found.heads.config.rank) == (2, 2)
    assert found.heads.config.feature_layers == (1, 2, 3)
    document = json.loads(result.stdout)
    assert document["finished"]
    assert len(document["acceptance"]["greedy"]) == 2
    assert found.record["model"]["vocab_size"] == 256 + 3 + 7
    assert set(json.loads((tmp_path / "h.history.json").read_text())) == {"single", "mixture"}
    assert not (tmp_path / ".h.safetensors.training").exists()
    shown = CliRunner().invoke(cli, ["draft", "show", str(tmp_path / "h.safetensors")])
    assert "2 tokens, 2 components, 64 tokens to choose from" in shown.output
    assert f"sees        {found.heads.config.window} earlier positions" in shown.output
    assert f"tokens by themselves ... ({256 + 3 + 7} tokens)" in result.stderr
    assert f"{256 + 3 + 7} tokens" in result.stderr.split("tokens by themselves: done")[1].splitlines()[0]


def test_without_a_text_the_model_talks_with_itself(train: Callable[..., Result], tmp_path: Path) -> None:
    result = train(given=False)
    assert result.exit_code == 0, result.output
    assert "next: edgekit export" in result.output
    assert (tmp_path / "h.png").stat().st_size > 10_000
    assert read_heads(tmp_path / "h.safetensors").record["text"]["given"] is None


def test_stopped_and_resumed_it_gives_the_same_heads(train: Callable[..., Result], tmp_path: Path) -> None:
    assert train(name="whole.safetensors").exit_code == 0
    stopped = train("--minutes", "0")
    assert stopped.exit_code == 0, stopped.output
    assert "--resume goes on" in stopped.output
    assert not (tmp_path / "h.safetensors").exists()
    refused = train()
    assert refused.exit_code == 1
    assert "not thrown away unasked" in str(refused.exception)
    other = train("--resume", "--seed", "3")
    assert other.exit_code == 1
    assert "begun with others" in str(other.exception)
    assert train("--resume").exit_code == 0
    one, two = read_heads(tmp_path / "h.safetensors"), read_heads(tmp_path / "whole.safetensors")
    for name, value in one.heads.state_dict().items():
        assert value.equal(two.heads.state_dict()[name]), name


def test_what_cannot_be_is_refused(train: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "taken.safetensors").write_text("mine")
    for more, name, words in (
        (["--resume"], "h.safetensors", "resuming needs a run that was cut off"),
        ([], "taken.safetensors", "the destination must be free"),
        (["--feature-layers", "2,1"], "h.safetensors", "choose --feature-layers that ascend and end at 3"),
        (["--feature-layers", "1,9"], "h.safetensors", "end at 3"),
        (["--length", "5000"], "h.safetensors", "must hold at least"),
    ):
        result = train(*more, name=name)
        assert result.exit_code == 1, result.output
        assert words in str(result.exception), result.output
    assert (tmp_path / "taken.safetensors").read_text() == "mine"
    assert train("--feature-layers", "one").exit_code == 2


@pytest.mark.parametrize("name", ["h.bin", "h", "h.safetensors.d"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_file_of_another_kind_is_refused_by_its_name(
    name: str, more: tuple[str, ...], train: Callable[..., Result], tmp_path: Path
) -> None:
    refused = train(*more, name=name)
    assert refused.exit_code == 1
    assert f"{tmp_path / name} does not" in str(refused.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_products_are_of_the_type_that_is_asked_for(train: Callable[..., Result], tmp_path: Path) -> None:
    for compute in ("float32", "bfloat16"):
        result = train("--compute", compute, name=f"{compute}.safetensors")
        assert result.exit_code == 0, result.output
        assert f"{compute} products" in result.output
        assert read_heads(tmp_path / f"{compute}.safetensors").record["options"]["compute"] == compute


def test_stopped_amid_hidden_states_it_goes_on(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = features.cached_features
    monkeypatch.setattr(training, "cached_features", lambda *a, **k: real(*a, **{**k, "stop": lambda: True}))
    stopped = train()
    assert "--resume goes on" in stopped.output
    assert not (tmp_path / "h.safetensors").exists()
    monkeypatch.undo()
    assert train("--resume").exit_code == 0


def test_the_estimate_comes_first_and_a_dry_run_ends_there(train: Callable[..., Result], tmp_path: Path) -> None:
    result = train("--dry-run")
    assert result.exit_code == 0
    assert "estimate: about" in result.stdout
    document = json.loads(train("--dry-run", "--json").stdout)
    parts = ("talk_s", "features_s", "train_s")
    assert document["estimate"]["seconds"] == sum(document["estimate"][part] for part in parts) > 0
    impossible = train("--dry-run", "--feature-layers", "1,9")
    assert "end at 3" in str(impossible.exception)
    assert not list(tmp_path.glob(".h*"))


def test_heads_beside_the_output_are_not_replaced_unasked(train: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "h.3.safetensors").write_text("mine")
    refused = train("--also", "1", "--also", "3")
    assert refused.exit_code == 1
    assert f"{tmp_path / 'h.3.safetensors'} exists" in str(refused.exception)
    assert (tmp_path / "h.3.safetensors").read_text() == "mine"
    assert not (tmp_path / "h.safetensors").exists()
    assert not list(tmp_path.glob(".h*"))


def test_a_text_beside_conversations_is_trained_on_but_not_measured_on(
    train: Callable[..., Result], tmp_path: Path
) -> None:
    result = train("--positions", "1000")
    assert result.exit_code == 0, result.output
    text = read_heads(tmp_path / "h.safetensors").record["text"]
    assert text["given"] is not None
    assert text["positions"] > 48 * 128  # a batch of conversations, and the text
    nothing = train("--positions", "0", given=False, name="other.safetensors")
    assert "there must be a text" in str(nothing.exception)


def test_without_a_cache_the_model_talks_in_pytorch(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_cached", lambda device: False)
    result = train("--compute", "bfloat16", "--also", "1", given=False)
    assert result.exit_code == 0, result.output
    found, other = read_heads(tmp_path / "h.safetensors"), read_heads(tmp_path / "h.1.safetensors")
    assert (found.heads.config.rank, other.heads.config.rank) == (2, 1)
    assert found.record["text"]["positions"] >= 2000
    assert other.record["acceptance"] != found.record["acceptance"]


def test_a_device_that_is_not_there_is_refused(train: Callable[..., Result]) -> None:
    refused = train("--device", "cuda:99")
    assert "on a device that PyTorch has" in str(refused.exception)
    assert "on a device that PyTorch has" in str(train("--device", "gpu").exception)
