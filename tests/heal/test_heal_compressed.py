"""Healing compressed tiny models: closer to the original, in the same bytes, and resumed to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.compressed import CompressedCheckpoint
from edgekit.checkpoint.safetensors_header import read_safetensors_header
from edgekit.cli.main import cli
from edgekit.compress.calibration import calibration_text
from edgekit.contract import KIND_ENCODER
from edgekit.errors import CheckpointError, EdgekitError, ExportError, ModelError
from edgekit.heal import compressed as healing
from edgekit.heal.compressed import heal_compressed, training_passages
from edgekit.heal.curves import curve_file, history_file
from edgekit.heal.estimate import TIMED, HealEstimate
from edgekit.heal.options import HealOptions
from edgekit.heal.summands import Summands
from edgekit.heal.trainable import Trainable
from edgekit.models.registry import encoder_from_checkpoint, kind_of, model_from_checkpoint
from edgekit.progress import SilentProgress
from tests.compress.layerwise.small import compressed as compress_small
from tests.parity.tiny_models import write_checkpoint
from tests.tiny_encoder import write_encoder

QUICK = HealOptions(length=32, batch=4, rate=1e-2, steps=60)
TEXT = calibration_text()[:20000]
#: What healing must not touch, by the ends of names; a base's scales are named like this too.
FIXED = ("codes", "zero_points", "columns", "counts", "bits", "places")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    return {
        "llama": write_checkpoint(folder / "llama", "llama", num_hidden_layers=2),
        "bert": write_encoder(folder / "bert", "bert"),
    }


@pytest.fixture(scope="module")
def made(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """made(model, method): a compressed checkpoint."""
    known: dict[str, Path] = {}

    def make(model: str, method: str = "saten-augmented", **changes: Any) -> Path:
        if method == "saten-augmented":
            changes = {"sparsity": "unstructured:95%", "bits_per_weight": 6.0}
        key = f"{model}.{method}"
        if key not in known:
            known[key] = tmp_path_factory.mktemp("compressed") / key
            compress_small(sources[model], known[key], method=method, **changes)
        return known[key]

    return make


def opened(path: Path) -> CompressedCheckpoint:
    found = open_checkpoint(path)
    assert isinstance(found, CompressedCheckpoint)
    return found


def heal(small: Path, source: Path, out: Path, options: HealOptions = QUICK, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"text": TEXT, "progress": SilentProgress()} | more
    return heal_compressed(opened(small), open_checkpoint(source), out, options, **settings)


def distance(path: Path, source: Path) -> float:
    """Mean squared distance of the last hidden states, by the models' own forward passes."""
    one, other = open_checkpoint(path), open_checkpoint(source)
    ids = training_passages(one, TEXT[-6000:], 24)[:16]
    mask = torch.ones_like(ids)
    outputs = []
    for each in (one, other):
        with torch.no_grad():
            if kind_of(each.config) == KIND_ENCODER:
                outputs.append(encoder_from_checkpoint(each)(ids, mask).hidden[-1])
            else:
                model = model_from_checkpoint(each)
                outputs.append(model(ids, mask, model.empty_cache(len(ids)), torch.tensor([0])).logits.log_softmax(-1))
    return float((outputs[0] - outputs[1]).square().mean())


def tensors(path: Path) -> dict[str, bytes]:
    file = path / "model.safetensors"
    contents = file.read_bytes()
    return {n: contents[t.offset : t.offset + t.nbytes] for n, t in read_safetensors_header(file).items()}


def kind_of_piece(small: CompressedCheckpoint, name: str) -> str:
    weight, _, array = name.partition("/")
    return str(small.records[weight]["pieces"][int(array.split(".")[0])]["kind"])


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_healing_comes_closer_in_the_same_bytes(
    model: str, sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path
) -> None:
    small, out = made(model), tmp_path / "healed"
    record = heal(small, sources[model], out)
    assert record["kept"]
    assert record["held_out"]["after"] < 0.93 * record["held_out"]["before"]
    assert distance(out, sources[model]) < distance(small, sources[model])
    assert read_safetensors_header(out / "model.safetensors") == read_safetensors_header(small / "model.safetensors")
    before, after, changed = tensors(small), tensors(out), set()
    for name in before:
        if before[name] != after[name]:
            assert "/" in name, name
            assert kind_of_piece(opened(small), name) != "base", name
            changed.add(name.rsplit(".", 1)[1])
    assert changed
    assert all(name.startswith(("a_", "b_", "value_")) for name in changed)
    assert {p.name for p in out.iterdir()} == {p.name for p in small.iterdir()}
    assert (out / "config.json").read_bytes() == (small / "config.json").read_bytes()
    told, told_before = (json.loads((each / "compression.json").read_text()) for each in (out, small))
    assert told.pop("healing") == [json.loads(json.dumps(record))]
    assert told == told_before
    assert not (tmp_path / ".healed.healing").exists()


@pytest.mark.parametrize(
    ("method", "also"),
    [
        ("saten", ()),
        ("tt", ("codes",)),
        ("saten-augmented", ("scales", "norms")),
        ("saten-augmented", ("codes",)),
        ("saten-augmented", ("scales", "codes")),
    ],
)
def test_what_starts_is_what_is_stored(
    method: str, also: tuple[str, ...], sources: dict[str, Path], made: Callable[..., Path]
) -> None:
    small = opened(made("llama", method, bits_per_weight=8.0) if method != "saten-augmented" else made("llama"))
    model = model_from_checkpoint(small)
    trained = Trainable(model, small, also, open_checkpoint(sources["llama"]))
    assert any(name.endswith("/codes") for name in trained.parameters) == (also[-1:] == ("codes",) and method != "tt")
    before = tensors(small.path)
    for name, array in trained.arrays().items():
        assert array.tobytes() == before[name], name
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and f"{name}.weight" in small.records:
            np.testing.assert_allclose(
                module.weight.detach().numpy(), small.array(f"{name}.weight"), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("codes", [False, True])
def test_what_is_trained_is_what_will_be_stored(codes: bool, made: Callable[..., Path]) -> None:
    small = opened(made("llama"))
    name = next(n for n in small.records if len(small.records[n]["pieces"]) == 3)
    summands = Summands(small.matrix(name), scales=True, codes=codes)
    draw, held = torch.Generator().manual_seed(0), summands.held()
    with torch.no_grad():
        for parameter in summands.parts.parameters():
            parameter.mul_(1 + 0.4 * torch.randn(parameter.shape, generator=draw))
        if codes:  # many far out of their range
            held += 5 * torch.randn(held.shape, generator=draw)
        found = summands(held)
    stored = summands.stored(held)
    np.testing.assert_allclose(found.numpy(), stored.reconstruct(), rtol=1e-5, atol=1e-5)
    assert stored.nbytes == small.matrix(name).nbytes
    kept = small.matrix(name).arrays()
    changed = set()
    for key, array in stored.arrays().items():
        kind, array_name = kind_of_piece(small, f"{name}/{key}"), key.split(".")[1]
        if array.tobytes() != kept[key].tobytes():
            changed.add(f"{kind} {array_name}")
    fixed = {
        name for name in changed if name.startswith("base") or (name.startswith("sparse") and "value_" not in name)
    }
    assert fixed == ({"base scales", "base codes"} if codes else {"base scales"})


def test_codes_on_request(sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path) -> None:
    small = made("bert", "gptq", bits_per_weight=2.8)
    for also in (("scales",), ("codes",), ("scales", "codes")):
        out = tmp_path / "-".join(also)
        options = HealOptions(length=32, batch=4, rate=1e-2, steps=60, also=also)
        held_out = heal(small, sources["bert"], out, options)["held_out"]
        assert held_out["after"] < held_out["before"]
        before, after = tensors(small), tensors(out)
        assert {n.rsplit(".", 1)[1] for n in before if before[n] != after[n]} == set(also)
        assert read_safetensors_header(out / "model.safetensors") == read_safetensors_header(
            small / "model.safetensors"
        )
    assert distance(tmp_path / "scales-codes", sources["bert"]) < distance(small, sources["bert"])


def test_scales_and_norms_on_request(sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path) -> None:
    small, out = made("bert", "dense", bits_per_weight=4.5), tmp_path / "healed"
    with pytest.raises(ModelError, match="holds codes alone"):
        heal(small, sources["bert"], out)
    options = HealOptions(length=32, batch=4, rate=1e-2, steps=40, also=("scales", "norms"))
    record = heal(small, sources["bert"], out, options)
    assert record["held_out"]["after"] < record["held_out"]["before"]
    before, after = tensors(small), tensors(out)
    changed = {name for name in before if before[name] != after[name]}
    assert any("LayerNorm" in name for name in changed)
    assert any(name.endswith(".scales") for name in changed)
    assert all(name.endswith(".scales") or "LayerNorm" in name for name in changed)


def test_a_healing_that_is_cut_off_resumes_to_the_same_bytes(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, small = HealOptions(length=32, batch=2, steps=9, also=("codes",)), made("bert")
    heal(small, sources["bert"], tmp_path / "whole", options)
    measure, calls = healing._loss, []

    def cut(*arguments: Any) -> Any:
        if len(calls) == 5 + 1 + TIMED:  # the first are timed
            raise KeyboardInterrupt
        calls.append(0)
        return measure(*arguments)

    monkeypatch.setattr(healing, "_loss", cut)
    with pytest.raises(KeyboardInterrupt):
        heal(small, sources["bert"], tmp_path / "cut", options, save_every=0.0)
    assert not (tmp_path / "cut").exists()
    assert torch.load(tmp_path / ".cut.healing" / "course.pt", weights_only=True)["step"] == 5
    monkeypatch.setattr(healing, "_loss", measure)
    with pytest.raises(CheckpointError, match="not thrown away unasked"):
        heal(small, sources["bert"], tmp_path / "cut", options)
    with pytest.raises(CheckpointError, match="begun with others"):
        heal(small, sources["bert"], tmp_path / "cut", QUICK, resume=True)
    record = heal(small, sources["bert"], tmp_path / "cut", options, resume=True)
    assert record["steps"] == 9
    assert tensors(tmp_path / "cut") == tensors(tmp_path / "whole")


def test_what_does_not_help_is_not_kept(sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path) -> None:
    options = HealOptions(length=32, batch=1, rate=5.0, steps=4)
    record = heal(made("bert"), sources["bert"], tmp_path / "out", options)
    assert not record["kept"]
    assert tensors(tmp_path / "out") == tensors(made("bert"))


def test_what_did_harm_is_told_with_smaller_steps(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["heal", str(made("bert")), "--teacher", str(sources["bert"]), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, [*words, "--length", "32", "--batch", "1", "--rate", "5", "--steps", "4"])
    assert result.exit_code == 0, result.output
    assert "kept as it was" in result.stdout
    assert "next: heal with smaller steps, --rate 1 (these had 5), or with more text" in result.stdout


def test_minutes_are_turned_into_steps(sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path) -> None:
    record = heal(made("bert"), sources["bert"], tmp_path / "out", HealOptions(minutes=0.01, length=32))
    assert record["steps"] >= 1
    assert record["seconds"] < 10


def test_bfloat16_trains_the_same_numbers(sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path) -> None:
    options = HealOptions(length=32, batch=4, rate=3e-3, steps=60, compute="bfloat16")
    record = heal(made("bert"), sources["bert"], tmp_path / "out", options)
    assert record["held_out"]["after"] < record["held_out"]["before"]


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["llama", "bert"])
def test_on_a_gpu_losses_are_those_of_the_cpu(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path, model: str
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    options = HealOptions(length=32, batch=4, rate=3e-3, steps=20, also=("scales", "norms"))
    records = {
        device: heal(made(model), sources[model], tmp_path / device, replace(options, device=device))
        for device in ("cpu", "cuda")
    }
    losses = {device: [record["held_out"][when] for when in ("before", "after")] for device, record in records.items()}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.02)
    assert records["cuda"]["kept"]
    sizes = {(tmp_path / device / "model.safetensors").stat().st_size for device in records}
    assert len(sizes) == 1


def test_a_pair_that_does_not_belong_together_is_refused(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="is compressed itself"):
        heal(made("llama"), made("llama"), tmp_path / "out")
    other = write_checkpoint(tmp_path / "other", "llama", num_hidden_layers=2, rope_theta=900.0)
    with pytest.raises(ModelError, match="rope_theta"):
        heal(made("llama"), other, tmp_path / "out")
    for options, fact in ((HealOptions(also=("q_proj",)), "q_proj"), (HealOptions(compute="float16"), "float16")):
        with pytest.raises(ExportError, match=fact):
            heal(made("llama"), sources["llama"], tmp_path / "out", options)
    for device in ("cuda:99", "tpu"):
        with pytest.raises(ModelError, match=device):
            heal(made("llama"), sources["llama"], tmp_path / "out", HealOptions(device=device))
    (tmp_path / "mine").mkdir()
    with pytest.raises(EdgekitError, match="must be free"):
        heal(made("llama"), sources["llama"], tmp_path / "mine", overwrite=True)


def test_the_verb(sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ["heal", made("bert"), "--teacher", sources["bert"], "-o", tmp_path / "out", "--length", 32]
    result = CliRunner().invoke(cli, [*map(str, arguments), "--steps", "5", "--rate", "0.005"])
    assert result.exit_code == 0, result.output
    assert "loss of passages not trained on" in result.output
    assert "healing" in json.loads((tmp_path / "out" / "compression.json").read_text())
    assert "estimate: 5 steps, about" in result.stderr
    assert f"curves  {tmp_path / 'out.png'}" in result.stdout
    assert (tmp_path / "out.png").stat().st_size > 10_000
    history = json.loads((tmp_path / "out.history.json").read_text())
    assert [entry["step"] for entry in history["steps"]] == [1, 2, 3, 4, 5]
    assert history["held_out"]["before"] > 0


def test_a_dry_run_tells_and_writes_nothing(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = ["heal", made("bert"), "--teacher", sources["bert"], "-o", tmp_path / "out", "--length", 32]
    words = [*map(str, arguments), "--dry-run"]
    for size, steps in ((["--steps", "7"], 7), (["--minutes", "0"], 0)):
        result = CliRunner().invoke(cli, [*words, *size])
        assert result.exit_code == 0, result.output
        assert f"estimate: {steps} steps, about" in result.stdout
    found = json.loads(CliRunner().invoke(cli, [*words, "--steps", "70", "--json"]).stdout)["estimate"]
    assert HealEstimate(**found).steps == 70
    fewer = json.loads(CliRunner().invoke(cli, [*words, "--steps", "7", "--json"]).stdout)["estimate"]
    assert 0 < fewer["seconds"] < found["seconds"]
    copied = sum(path.stat().st_size for path in made("bert").iterdir())
    assert found["work_bytes"] > copied
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_leaves_an_unfinished_run_alone(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = HealOptions(length=32, batch=2, steps=3)
    monkeypatch.setattr(healing, "_train", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        heal(made("bert"), sources["bert"], tmp_path / "out", options)
    before = {path.name: path.read_bytes() for path in (tmp_path / ".out.healing").iterdir()}
    assert heal(made("bert"), sources["bert"], tmp_path / "out", options, dry_run=True, overwrite=True)["steps"] == 3
    assert {path.name: path.read_bytes() for path in (tmp_path / ".out.healing").iterdir()} == before


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    sources: dict[str, Path], made: Callable[..., Path], tmp_path: Path
) -> None:
    """By kill -9; what a run left behind that died while it wrote is cleared away."""
    small = ["--teacher", str(sources["bert"]), "--length", "32", "--steps", "60", "--batch", "4"]
    verb = [sys.executable, "-m", "edgekit.cli.main", "heal", str(made("bert")), *small]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    log = tmp_path / ".killed.healing" / healing.LOG
    with subprocess.Popen([*verb, "-o", str(tmp_path / "killed")], env=environment, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + 120
        while not (log.is_file() and log.read_text().count("\n") > 4) and time.monotonic() < until:
            assert run.poll() is None
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed").exists()
    (tmp_path / f".killed.partial-{run.pid}").mkdir()
    for out, more in (("killed", ["--resume"]), ("whole", [])):
        subprocess.run([*verb, "-o", str(tmp_path / out), *more], env=environment, check=True, capture_output=True)
    assert tensors(tmp_path / "killed") == tensors(tmp_path / "whole")
    steps = [json.loads(history_file(tmp_path / out).read_text())["steps"] for out in ("killed", "whole")]
    assert [entry["loss"] for entry in steps[0]] == [entry["loss"] for entry in steps[1]]
    expected = {history_file(tmp_path / n).name for n in ("killed", "whole")} | {"killed", "whole"}
    assert {path.name for path in tmp_path.iterdir()} == expected | {
        curve_file(tmp_path / n).name for n in ("killed", "whole")
    }


def test_the_layout_of_training_code_is_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    small = tmp_path / "small"
    compress_small(sources["llama"], small, method="svd", bits_per_weight=8.0, layout="tm_params")
    result = CliRunner().invoke(
        cli, ["heal", str(small), "--teacher", str(sources["llama"]), "-o", str(tmp_path / "out")]
    )
    assert isinstance(result.exception, ModelError)
    assert "layout of Saten's training code" in result.exception.fact
    assert "without --format tm_params" in str(result.exception.next_step)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
