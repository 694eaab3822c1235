"""edgekit convert and edgekit heal on tiny models: what they write, and what they refuse without a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from edgekit.checkpoint import open_checkpoint
from edgekit.cli import convert as convert_verb
from edgekit.cli.main import cli
from edgekit.compress.attention.convert import AUTO
from edgekit.compress.attention.structure import structures
from edgekit.errors import EdgekitError
from edgekit.models.registry import model_from_checkpoint
from tests.parity.tiny_models import write_checkpoint

SMALL = ("--calibration-sequences", "4", "--calibration-length", "32")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return write_checkpoint(tmp_path / "llama", "llama", num_hidden_layers=2)


def edgekit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def refusal(*arguments: str | Path) -> str:
    result = edgekit(*arguments)
    assert isinstance(result.exception, EdgekitError), (result.output, result.exception)
    return str(result.exception)


def logits(path: Path) -> Any:
    model = model_from_checkpoint(open_checkpoint(path))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        return model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([0])).logits


@pytest.mark.parametrize("name", ["llama", "llama-untied", "qwen2"])
def test_exact_conversion_keeps_the_logits(name: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", name, num_hidden_layers=2, use_sliding_window=False)
    result = edgekit("convert", source, "-o", tmp_path / "out", "--structure", "exact")
    assert result.exit_code == 0, result.output
    torch.testing.assert_close(logits(tmp_path / "out"), logits(source), rtol=0, atol=2e-5)
    assert "100.0%" in result.output


def test_a_mistral_without_window_converts(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", model_type="mistral", sliding_window=None)
    assert edgekit("convert", source, "-o", tmp_path / "out", "--structure", "exact").exit_code == 0
    torch.testing.assert_close(logits(tmp_path / "out"), logits(source), rtol=0, atol=2e-5)


def test_auto_compares_structures_and_records_everything(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    result = edgekit("convert", source, "-o", out, "--cache-ratio", "0.5", "--json", *SMALL)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "conversion.json").read_text())
    assert set(record["divergence_on_held_out_text"]) == {"spectral", "latent"}
    assert record["chosen"] in ("spectral", "latent")
    numbers = record["cache_numbers_per_token"]
    assert numbers["after"] == sum(numbers["per_layer"]) <= numbers["before"] // 2
    layout = model_from_checkpoint(open_checkpoint(out)).cache_layout()
    assert numbers["per_layer"] == [sum(tensor.numbers for tensor in cache) for cache in layout]
    assert len(record["layers"]) == 2
    assert {"tokenizer.json", "config.json", "model.safetensors"} <= {path.name for path in out.iterdir()}
    # Untouched tensors are the source's, bit for bit.
    before, after = open_checkpoint(source), open_checkpoint(out)
    for name in before.names():
        if "k_proj" not in name and "v_proj" not in name:
            np.testing.assert_array_equal(after.array(name), before.array(name), err_msg=name)
    again = edgekit("convert", source, "-o", tmp_path / "third", "--cache-ratio", "0.4", *SMALL)
    assert "statistics measured before" in again.output


@pytest.mark.parametrize(
    ("options", "rank"), [(("head",), 1), (("spectral", "--value-structure", "exact"), 5), (("latent",), 9)]
)
def test_a_rank_sets_every_layer(options: tuple[str, ...], rank: int, source: Path, tmp_path: Path) -> None:
    result = edgekit("convert", source, "-o", tmp_path / "out", "--structure", *options, "--kv-rank", str(rank), *SMALL)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert [layer["key"]["components"] for layer in record["layers"]] == [rank, rank]


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    result = edgekit("convert", source, "-o", tmp_path / "out", "--cache-ratio", "0.5", "--dry-run")
    assert result.exit_code == 0
    assert "cache bytes per token" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "either a cache ratio or a rank"),
        (("--cache-ratio", "0.5", "--kv-rank", "3"), "either a cache ratio or a rank"),
        (("--cache-ratio", "0"), "above 0 and at most 1"),
        (("--cache-ratio", "1.5"), "above 0 and at most 1"),
        (("--cache-ratio", "0.01"), "leave room"),
        (("--structure", "latent", "--kv-rank", "33"), "from 1 to 32"),
        (("--structure", "spectral", "--kv-rank", "17"), "from 1 to 16"),
        (("--structure", "head", "--kv-rank", "0"), "from 1 to 2"),
        (("--structure", "exact", "--cache-ratio", "0.5"), "keeps the cache as it is"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], message: str, source: Path, tmp_path: Path) -> None:
    assert message in refusal("convert", source, "-o", tmp_path / "out", *options, *SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "message"), [("qwen3", "normalises each head"), ("gemma3_text", "normalises each")])
def test_models_with_normalised_heads_are_refused(name: str, message: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", name)
    assert message in refusal("convert", source, "-o", tmp_path / "out", "--structure", "exact")


def test_a_window_is_refused(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", "llama", model_type="mistral", sliding_window=7)
    assert "window of 7" in refusal("convert", source, "-o", tmp_path / "out", "--structure", "exact")


def test_what_is_converted_already_is_refused(source: Path, tmp_path: Path) -> None:
    assert edgekit("convert", source, "-o", tmp_path / "out", "--structure", "exact").exit_code == 0
    assert "converted already" in refusal("convert", tmp_path / "out", "-o", tmp_path / "again")
    assert "exists" in refusal("convert", source, "-o", tmp_path / "out", "--structure", "exact")
    assert edgekit("convert", source, "-o", tmp_path / "out", "--structure", "exact", "--overwrite").exit_code == 0
    (tmp_path / "mine").mkdir()
    assert "holds no conversion.json" in refusal(
        "convert", source, "-o", tmp_path / "mine", "--structure", "exact", "--overwrite"
    )


def test_heal_writes_a_model_beside_the_converted_one(source: Path, tmp_path: Path) -> None:
    half, healed = tmp_path / "half", tmp_path / "healed"
    assert (
        edgekit("convert", source, "-o", half, "--structure", "latent", "--cache-ratio", "0.5", *SMALL).exit_code == 0
    )
    quick = ("--minutes", "0", "--sequences", "4", "--length", "32")
    result = edgekit("heal", half, "--teacher", source, "-o", healed, *quick)
    assert result.exit_code == 0, result.output
    assert "error²" in result.output
    assert open_checkpoint(healed).config == open_checkpoint(half).config
    assert "Convert it first" in refusal("heal", source, "--teacher", source, "-o", tmp_path / "x", *quick)


def test_the_verb_offers_the_structures_that_there_are() -> None:
    assert sorted(convert_verb.STRUCTURES) == sorted([AUTO, *structures("key")])
    assert sorted(convert_verb.VALUE_STRUCTURES) == structures("value")


def test_a_t6_goes_to_the_training_layout_and_back(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "exports" / "t6-small"
    result = edgekit("convert", source, "-o", tmp_path / "training", "--layout", "training")
    assert result.exit_code == 0, result.output
    back, original = open_checkpoint(tmp_path / "training"), open_checkpoint(source)
    assert json.loads((tmp_path / "training" / "config.json").read_text())["model_type"] == "gpt2"
    assert back.config["model_type"] == "t6"
    assert sorted(back.names()) == sorted(original.names())
    for name in original.names():
        np.testing.assert_array_equal(back.array(name), original.array(name), err_msg=name)


def test_only_a_t6_has_the_training_layout(source: Path, tmp_path: Path) -> None:
    assert "is a llama" in refusal("convert", source, "-o", tmp_path / "out", "--layout", "training")
    assert not (tmp_path / "out").exists()
