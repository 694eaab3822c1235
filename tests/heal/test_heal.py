"""Healing on tiny models: it lowers the divergence, resumes where it was cut off, and refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.compress.attention.balance import balanced, evened
from edgekit.compress.attention.convert import ConvertOptions, convert
from edgekit.compress.calibration import calibration_text, calibration_tokens, whole_text
from edgekit.errors import CheckpointError, ExportError, ModelError
from edgekit.heal import heal as healing
from edgekit.heal.curves import draw
from edgekit.heal.distill import DistillOptions, divergence, keep_in_bfloat16, passages, precision
from edgekit.heal.full_attention import full_attention, layer_output, layers_of, logits_of, tables_of
from edgekit.heal.head_divergence import HeadDivergence
from edgekit.heal.heal import heal
from edgekit.heal.options import HealOptions
from edgekit.heal.parameters import KEPT_RATE, all_trained, groups
from edgekit.models.registry import model_from_checkpoint, model_from_config
from edgekit.progress import SilentProgress
from tests.models.test_llama_tpa import CONFIG
from tests.parity.tiny_models import write_checkpoint

QUICK = HealOptions(minutes=0, sequences=6, length=32, epochs=6)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("source") / "llama", "llama", num_hidden_layers=2))


@pytest.fixture(scope="module")
def converted(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    made: dict[str, Checkpoint] = {}

    def make(structure: str) -> Checkpoint:
        if structure not in made:
            folder = tmp_path_factory.mktemp(structure)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EDGEKIT_CACHE", str(folder / "cache"))
                options = ConvertOptions(structure=structure, cache_ratio=0.5, sequences=6, length=32)
                convert(source, folder / "model", options, progress=SilentProgress())
            made[structure] = open_checkpoint(folder / "model")
        return made[structure]

    return make


def kl(student: Checkpoint, source: Checkpoint) -> float:
    """Nats per token on passages of the text that healing takes."""
    rows = calibration_tokens(source.tokenizer_files()["tokenizer.json"], calibration_text(), 24, 32)
    models = model_from_checkpoint(student), model_from_checkpoint(source)
    with torch.no_grad():
        return sum(float(divergence(*models, row[None])[0]) for row in rows) / len(rows)


def test_full_attention_is_the_modules_own_forward() -> None:
    torch.manual_seed(0)
    model = model_from_config(CONFIG).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ids = torch.randint(0, 50, (2, 11))
    hidden = model.model.embed_tokens(ids)
    for layer in layers_of(model):
        x = layer.input_layernorm(hidden)
        past = tuple(x.new_empty(tensor.shape(2, 0)) for tensor in layer.self_attn.cache_tensors())  # type: ignore[operator]
        expected = layer.self_attn(x, past, torch.ones_like(ids), *tables_of(model, layer))[0]
        found = full_attention(layer.self_attn, x, *tables_of(model, layer))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        hidden = layer_output(model, layer, hidden)
    whole = model(ids, torch.ones_like(ids), model.empty_cache(2), torch.tensor([0])).logits
    torch.testing.assert_close(logits_of(model, hidden), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("structure", ["spectral", "latent", "head"])
def test_fitting_layers_lowers_every_error_and_the_divergence(
    structure: str, source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    before = converted(structure)
    record = heal(before, source, tmp_path / "healed", QUICK, progress=SilentProgress())
    assert [entry["layer"] for entry in record["layers"]] == [0, 1]
    assert all(entry["after"] <= entry["before"] for entry in record["layers"])
    assert sum(e["after"] for e in record["layers"]) < sum(e["before"] for e in record["layers"])
    history = json.loads((tmp_path / "healed.history.json").read_text())
    assert [entry["layer"] for entry in history["layers"]] == [0, 1]
    assert draw(tmp_path / "healed").stat().st_size > 10_000
    after = open_checkpoint(tmp_path / "healed")
    assert after.config == before.config
    for name in before.names():
        if "self_attn.q_proj" in name or "self_attn" not in name:
            np.testing.assert_array_equal(after.array(name), before.array(name), err_msg=name)
    assert "healing" in json.loads((tmp_path / "healed" / "conversion.json").read_text())
    assert not (tmp_path / ".healed.healing").exists()


def test_distilling_lowers_the_divergence(
    source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    options = HealOptions(minutes=0.08, sequences=6, length=32, epochs=0)
    record = heal(converted("latent"), source, tmp_path / "healed", options, progress=SilentProgress())
    assert record["step"] > 3
    assert kl(open_checkpoint(tmp_path / "healed"), source) < 0.98 * kl(converted("latent"), source)


def test_a_healing_that_is_cut_off_resumes_to_the_same_end(
    source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heal(converted("latent"), source, tmp_path / "whole", QUICK, progress=SilentProgress())
    kept: Any = healing._save_weights

    def cut_after_first(*arguments: Any) -> None:
        kept(*arguments)
        monkeypatch.setattr(healing, "_save_weights", fail)

    def fail(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(healing, "_save_weights", cut_after_first)
    with pytest.raises(KeyboardInterrupt):
        heal(converted("latent"), source, tmp_path / "cut", QUICK, progress=SilentProgress())
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(healing, "_save_weights", kept)
    record = heal(converted("latent"), source, tmp_path / "cut", QUICK, resume=True, progress=SilentProgress())
    assert [entry["layer"] for entry in record["layers"]] == [0, 1]
    whole, cut = open_checkpoint(tmp_path / "whole"), open_checkpoint(tmp_path / "cut")
    for name in whole.names():
        np.testing.assert_allclose(cut.array(name), whole.array(name), atol=1e-6, err_msg=name)


def test_a_distillation_that_is_cut_off_goes_on_from_its_last_save(
    source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = HealOptions(minutes=0.02, sequences=6, length=32, epochs=0)
    write: Any = healing._write

    def fail(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(healing, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        heal(converted("latent"), source, tmp_path / "out", options, progress=SilentProgress())
    kept = torch.load(tmp_path / ".out.healing" / healing.COURSE, weights_only=True)
    assert kept["step"] > 0
    # Base rates are those of the beginning: the trained parameters have grown since.
    model = model_from_checkpoint(converted("latent"))
    model.load_state_dict(healing.rescaled(all_trained(model), evened), strict=False)
    assert kept["rates"] == [group["lr"] for group in groups(all_trained(model), DistillOptions().rate)]
    with pytest.raises(CheckpointError, match="not thrown away unasked"):
        heal(converted("latent"), source, tmp_path / "out", options, progress=SilentProgress())
    monkeypatch.setattr(healing, "_write", write)
    record = heal(converted("latent"), source, tmp_path / "out", options, resume=True, progress=SilentProgress())
    assert record["step"] == kept["step"]  # its time was spent
    healed = open_checkpoint(tmp_path / "out")
    for name, tensor in healing.rescaled(kept["weights"], balanced).items():
        np.testing.assert_array_equal(healed.array(name), tensor.numpy(), err_msg=name)


def test_resuming_asks_for_the_same_job(
    source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="holds none"):
        heal(converted("latent"), source, tmp_path / "out", QUICK, resume=True, progress=SilentProgress())

    def fail(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(healing, "_fit", fail)
    with pytest.raises(KeyboardInterrupt):
        heal(converted("latent"), source, tmp_path / "out", QUICK, progress=SilentProgress())
    other = HealOptions(minutes=0, sequences=6, length=32, epochs=5)
    with pytest.raises(CheckpointError, match="begun with others"):
        heal(converted("latent"), source, tmp_path / "out", other, resume=True, progress=SilentProgress())


def test_what_is_trained_is_what_the_conversion_made(converted: Callable[[str], Checkpoint]) -> None:
    names = {name.split("self_attn.")[1] for name in all_trained(model_from_checkpoint(converted("latent")))}
    assert names == {"k_proj.weight", "k_up", "k_bias", "v_proj.weight", "v_up"}
    names = {name.split("self_attn.")[1] for name in all_trained(model_from_checkpoint(converted("spectral")))}
    assert names == {"k_proj.weight", "q_mix", "v_proj.weight", "v_up"}
    more = all_trained(model_from_checkpoint(converted("spectral")), ("o_proj",))
    assert sum("o_proj" in name for name in more) == 2


def test_steps_are_relative_and_smaller_for_what_was_trained_before() -> None:
    parameters = {
        "model.layers.0.self_attn.v_up": torch.nn.Parameter(torch.full((2, 3), -2.0)),
        "model.layers.0.self_attn.o_proj.weight": torch.nn.Parameter(torch.full((2, 3), 3.0)),
    }
    new, kept = (group["lr"] for group in groups(parameters, 0.01))
    assert new == pytest.approx(0.02)
    assert kept == pytest.approx(0.03 * KEPT_RATE)


def test_passages_come_once_an_epoch() -> None:
    tokens = torch.arange(5)[:, None].repeat(1, 3)
    steps = [passages(tokens, step, 2) for step in range(5)]
    assert all(rows.shape == (2, 3) for rows in steps)
    seen = torch.cat(steps)[:, 0].tolist()
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5))
    assert seen[:5] != seen[5:]


def test_distillation_reads_the_whole_text(source: Checkpoint) -> None:
    tokenizer = source.tokenizer_files()["tokenizer.json"]
    ids = Tokenizer.from_str(tokenizer.decode()).encode(calibration_text(), add_special_tokens=False).ids
    rows = whole_text(tokenizer, calibration_text(), 32)
    assert rows.flatten().tolist() == ids[: len(ids) // 32 * 32]
    with pytest.raises(ExportError, match="at least 32 tokens"):
        whole_text(tokenizer, "a few words", 32)


def test_the_divergence_and_its_gradient_are_those_of_the_logits() -> None:
    draw = torch.Generator().manual_seed(0)
    # 300 tokens: more than one chunk, the last one not full.
    student, teacher = (torch.randn(300, 7, generator=draw, dtype=torch.float64) for _ in range(2))
    heads = [torch.randn(41, 7, generator=draw, dtype=torch.float64) for _ in range(2)]
    student.requires_grad_()
    logits = (student @ heads[0].T).log_softmax(-1), (teacher @ heads[1].T).log_softmax(-1)
    expected = torch.nn.functional.kl_div(*logits, reduction="batchmean", log_target=True)
    (gradient,) = torch.autograd.grad(3 * expected, student)
    found = HeadDivergence.apply(student, teacher, *heads)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(3 * found, student)[0], gradient, rtol=1e-10, atol=1e-15)


def test_bfloat16_is_for_products_alone(source: Checkpoint, converted: Callable[[str], Checkpoint]) -> None:
    student, teacher = model_from_checkpoint(converted("latent")), model_from_checkpoint(source)
    ids = torch.randint(0, 50, (2, 32), generator=torch.Generator().manual_seed(0))
    expected = [value.item() for value in divergence(student, teacher, ids)]
    trained = all_trained(student)
    keep_in_bfloat16([*student.parameters(), *teacher.parameters()])
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    assert student.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert student.model.norm.weight.dtype == torch.float32
    with precision("bfloat16"):
        found = divergence(student, teacher, ids)
    assert [value.item() for value in found] == pytest.approx(expected, rel=0.05)
    found[0].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in trained.values())


def test_a_pair_that_does_not_belong_together_is_refused(
    source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    student = converted("latent")
    with pytest.raises(ModelError, match="neither converted nor compressed"):
        heal(source, source, tmp_path / "out", QUICK, progress=SilentProgress())
    with pytest.raises(ModelError, match="is converted itself"):
        heal(student, student, tmp_path / "out", QUICK, progress=SilentProgress())
    other = open_checkpoint(write_checkpoint(tmp_path / "other", "llama", num_hidden_layers=2, rope_theta=900.0))
    with pytest.raises(ModelError, match="rope_theta"):
        heal(student, other, tmp_path / "out", QUICK, progress=SilentProgress())
    with pytest.raises(ExportError, match="'float16' was asked for"):
        heal(student, source, tmp_path / "out", HealOptions(compute="float16"), progress=SilentProgress())
    with pytest.raises(ExportError, match="gate_proj"):
        options = HealOptions(also=("gate_proj",))
        heal(student, source, tmp_path / "out", options, progress=SilentProgress())
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists"):
        heal(student, source, tmp_path / "out", QUICK, progress=SilentProgress())


def test_what_it_will_take_is_told_first(
    source: Checkpoint, converted: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    options = HealOptions(minutes=0.05, sequences=6, length=32, epochs=2)
    dry = heal(converted("latent"), source, tmp_path / "out", options, dry_run=True, progress=SilentProgress())
    assert dry["steps"] >= 1
    assert dry["seconds"] > 3  # the minutes, and the fits before them
    assert list(tmp_path.iterdir()) == []
    told: list[Any] = []
    heal(converted("latent"), source, tmp_path / "out", QUICK, estimated=told.append, progress=SilentProgress())
    assert told[0].steps == 0
    assert told[0].seconds > 0
    assert not (tmp_path / ".out.healing").exists()
