from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from edgekit.bundle import write_bundle
from edgekit.cli.inspect import command
from edgekit.errors import BundleError, CheckpointError

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A Hugging Face directory with one float16 weight of 6 numbers."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"model.norm.weight": np.ones((2, 3), np.float16)}, path / "model.safetensors")
    (path / "tokenizer.json").write_text(Tokenizer(models.BPE({"a": 0, "b": 1}, [])).to_str())
    (path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "b", "chat_template": "Größe: {{ messages }}"})
    )
    return path


def test_a_checkpoint_as_a_table(checkpoint: Path) -> None:
    result = CliRunner().invoke(command, [str(checkpoint)])
    assert result.exit_code == 0, result.exception
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    rows = {label: value.strip() for label, value in rows.items()}
    assert rows["architecture"] == "llama"
    assert rows["parameters"] == "6"
    assert rows["types"] == "float16: 1 tensor, 6 parameters, 0.0 MB"
    # 2 * 3 layers * 2 heads * 8 numbers * 2 bytes, and the same with 4 heads and with 1
    assert rows["KV cache float16"] == (
        "192 bytes per token; MHA 384 (0.50 of it), GQA with 2 key heads 192 (1.00 of it), MQA 96 (2.00 of it)"
    )
    assert rows["KV cache float32"].startswith("384 bytes per token; MHA 768")
    assert rows["tokenizer"] == "BPE, 2 tokens"
    assert rows["eos token"] == "b"
    assert rows["chat template"].startswith("yes")


def test_a_checkpoint_as_json(checkpoint: Path) -> None:
    facts = json.loads(CliRunner().invoke(command, [str(checkpoint), "--json"]).stdout)
    assert facts["kind"] == "checkpoint"
    assert facts["parameters"] == 6
    assert facts["kv_cache_bytes_per_token"]["float16"] == {
        "own": 192,
        "MHA": 384,
        "GQA with 2 key heads": 192,
        "MQA": 96,
    }
    assert facts["tokenizer"]["chat_template"] is True


def test_a_configuration_of_no_known_model_has_an_unknown_cache(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": "many"}))
    result = CliRunner().invoke(command, [str(checkpoint)])
    assert result.exit_code == 0, result.exception
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert rows["KV cache float16"].strip() == "unknown"


def test_without_a_tokenizer_the_rest_is_shown(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    result = CliRunner().invoke(command, [str(checkpoint)])
    assert result.exit_code == 0
    assert "no tokenizer at all" in result.stdout


def test_the_template_alone(checkpoint: Path) -> None:
    result = CliRunner().invoke(command, [str(checkpoint), "--template"])
    assert result.stdout == "Größe: {{ messages }}\n"
    (checkpoint / "tokenizer_config.json").write_text("{}")
    result = CliRunner().invoke(command, [str(checkpoint), "--template"])
    assert isinstance(result.exception, CheckpointError)
    assert "has none" in result.exception.fact


def test_a_bundle_as_a_table(paper_bundle: Callable[..., Path]) -> None:
    path = paper_bundle()
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0, result.exception
    for text in (
        "paper (llama)",
        "ort",
        "int4",
        "shared, float32, 256 bytes per token",
        "at most 64 tokens",
        "model.onnx",
    ):
        assert text in result.stdout


def test_the_quantisation_of_a_bundle(tmp_path: Path, paper_draft: Callable[[Path], dict[str, object]]) -> None:
    with write_bundle(tmp_path / "bundle") as draft:
        draft.manifest.update(paper_draft(draft.path))
        draft.manifest["quantization"] = {
            "bits": 4,
            "counts": {"int4": 10, "int8": 2},
            "units_at_8_bits": [],
            "allowed_cost_nats": None,
            "expected_cost_nats": {},
            "calibration": None,
        }
    result = CliRunner().invoke(command, [str(tmp_path / "bundle")])
    assert "quantization bits" in result.stdout
    assert "int4 10, int8 2" in result.stdout
    rows = {line.split("  ")[0]: line.rsplit("  ", 1)[-1] for line in result.stdout.splitlines()}
    assert rows["quantization units at 8 bits"] == "none"
    # What was not measured is not told.
    for what in ("None", "cost nats", "calibration"):
        assert what not in result.stdout


def test_the_draft_heads_of_a_bundle(tmp_path: Path, paper_draft: Callable[[Path], dict[str, object]]) -> None:
    with write_bundle(tmp_path / "bundle") as draft:
        draft.manifest.update(paper_draft(draft.path))
        for name in ("draft.onnx", "draft.onnx.data", "draft_vocabulary.npy"):
            (draft.path / name).write_bytes(b"0")
        hidden: int = draft.manifest["model"]["hidden_size"]
        draft.manifest["draft"] = {
            "file": "draft.onnx",
            "data": ["draft.onnx.data"],
            "vocabulary": "draft_vocabulary.npy",
            "vocabulary_size": 8192,
            "tokens": 4,
            "rank": 8,
            "components": 2,
            "feature_layers": [1, 2],
            "features": 2 * hidden,
            "window": 64,
            "acceptance": {"greedy": [0.75, 0.5, 0.4, 0.3]},
        }
    rows = dict(line.split("  ", 1) for line in invoke_rows(tmp_path / "bundle"))
    assert rows["draft heads"].strip() == "4 tokens out of 8,192, in draft.onnx"
    assert rows["components"].strip() == "8, 2 computed"
    assert rows["read"].strip() == "the residual stream after layers 1, 2"
    assert rows["see"].strip() == "64 earlier positions"
    assert rows["accepted, greedy"].strip().startswith("75 %, 50 %, 40 %, 30 % (as measured in training")


def invoke_rows(path: Path) -> list[str]:
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0, result.exception
    return [line.strip() for line in result.stdout.splitlines() if "  " in line.strip()]


def test_a_bundle_as_json_is_its_manifest(paper_bundle: Callable[..., Path]) -> None:
    path = paper_bundle()
    facts = json.loads(CliRunner().invoke(command, [str(path), "--json"]).stdout)
    assert facts["kind"] == "bundle"
    manifest = json.loads((path / "manifest.json").read_text())
    assert {key: facts[key] for key in manifest} == manifest


def test_a_damaged_bundle_is_refused(paper_bundle: Callable[..., Path]) -> None:
    path = paper_bundle()
    (path / "model.onnx.data").unlink()
    result = CliRunner().invoke(command, [str(path)])
    assert isinstance(result.exception, BundleError)
    assert "model.onnx.data" in str(result.exception)


def test_a_bundle_without_template(paper_bundle: Callable[..., Path]) -> None:
    result = CliRunner().invoke(command, [str(paper_bundle()), "--template"])
    assert isinstance(result.exception, CheckpointError)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(result.exception, CheckpointError)
    assert "holds neither" in result.exception.fact


def test_it_needs_no_torch(checkpoint: Path) -> None:
    code = (
        "import sys\n"
        "from edgekit.cli.inspect import command\n"
        "command([sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
