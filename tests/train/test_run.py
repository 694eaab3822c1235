"""Training runs: the loss falls, a run that was cut short ends with the same bits, the result is a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.errors import EdgekitError
from edgekit.models import registry
from edgekit.progress import SilentProgress
from edgekit.train.recipe import read_training_recipe
from edgekit.train.run import Trained, train


def run(recipe: Path, text: Path, directory: Path, *, steps: int | None = None, **options: Any) -> Trained:
    """A run that stops after `steps` steps of this call."""
    counted = iter(range(steps)) if steps is not None else iter(int, 1)
    settings: dict[str, Any] = {"attention": "tpa", "resume": False} | options
    return train(
        read_training_recipe(recipe),
        settings["attention"],
        directory,
        data=text,
        resume=settings["resume"],
        stop=lambda: next(counted, None) is None,
        progress=SilentProgress(),
    )


@pytest.mark.parametrize("attention", ["tpa", "gqa"])
def test_the_loss_falls_and_the_result_is_a_checkpoint(
    tmp_path: Path, recipe_file: Path, text_file: Path, attention: str
) -> None:
    trained = run(recipe_file, text_file, tmp_path / "out", attention=attention)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert trained.finished
    assert trained.step == 200
    # What knowing how often each token occurs would give; order is worth much more in this text.
    entropy = _entropy_of_single_tokens(tmp_path / "out", text_file)
    assert 2 < entropy < 4
    assert history["training"][-1][1] < 0.6 * entropy < history["training"][0][1]
    assert trained.held_out_loss == history["held_out"][-1][1] < 0.6 * entropy
    assert [step for step, _ in history["held_out"]] == [80, 160, 200]
    checkpoint = open_checkpoint(tmp_path / "out")
    assert checkpoint.config["model_type"] == {"tpa": "t6", "gqa": "llama"}[attention]
    assert {checkpoint.spec(name).dtype for name in checkpoint.names()} == {"float16"}
    model = registry.model_from_checkpoint(checkpoint)
    tokenizer = _tokenizer(checkpoint)
    ids = torch.tensor([tokenizer.encode("sailors follow the").ids])
    output = model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([1]))
    assert tokenizer.decode([int(output.logits[0, -1].argmax())]) == " moon"


def _entropy_of_single_tokens(directory: Path, text: Path) -> float:
    counts = np.bincount(_tokenizer(open_checkpoint(directory)).encode(text.read_text()).ids)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _tokenizer(checkpoint: Any) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_str(checkpoint.tokenizer_files()["tokenizer.json"].decode())


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, recipe_file: Path, text_file: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(recipe_file, text_file, whole)
    for steps in (1, 13, 6):
        assert not run(recipe_file, text_file, parts, steps=steps, resume=True).finished
    assert run(recipe_file, text_file, parts, resume=True).finished
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    a, b = (torch.load(path / "state.pt", weights_only=True) for path in (whole, parts))
    assert a["step"] == b["step"] == 200
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    # The cuts lie between the entries of the curve, which average 25 steps.
    assert [step for step, _ in a["training"]] == list(range(25, 201, 25))
    for curve in ("training", "held_out", "recent"):
        assert a[curve] == b[curve], curve
    curves = [json.loads((path / "history.json").read_text()) for path in (whole, parts)]
    for curve in ("training", "held_out"):
        assert curves[0][curve] == curves[1][curve], curve
    for entry, state in a["optimizer"]["state"].items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(b["optimizer"]["state"][entry][k]))
            for k, v in state.items()
        )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_survives_its_process(tmp_path: Path, recipe_file: Path, text_file: Path, how: signal.Signals) -> None:
    """Killed, or stopped by Ctrl-C, while it trains: --resume reaches what an uninterrupted run reaches."""
    recipe_file.write_text(recipe_file.read_text().replace("steps = 200", "steps = 4000", 1))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "edgekit.cli.main", "train", "t6", "--config", str(recipe_file)]
    command += ["-o", str(out), "--data", str(text_file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "state.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), errors
    reached = torch.load(out / "state.pt", weights_only=True)["step"]
    assert 7 <= reached < 4000
    if how == signal.SIGINT:
        assert "--resume" in output
        assert "Traceback" not in errors
    run(recipe_file, text_file, out, steps=5, resume=True)
    run(recipe_file, text_file, tmp_path / "whole", steps=reached + 5)
    a, b = (torch.load(path / "state.pt", weights_only=True) for path in (out, tmp_path / "whole"))
    assert a["step"] == b["step"] == reached + 5
    assert all(torch.equal(tensor, b["model"][name]) for name, tensor in a["model"].items())


def test_refusals(tmp_path: Path, recipe_file: Path, text_file: Path) -> None:
    out = tmp_path / "out"
    run(recipe_file, text_file, out, steps=1)
    with pytest.raises(EdgekitError, match="must not overwrite"):
        run(recipe_file, text_file, out, steps=1)
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text().replace("moon", "sun"))
    with pytest.raises(EdgekitError, match="another recipe, text"):
        run(recipe_file, other, out, steps=1, resume=True)
    with pytest.raises(EdgekitError, match="another recipe, text"):
        run(recipe_file, text_file, out, steps=1, resume=True, attention="gqa")
    state = (out / "state.pt").read_bytes()
    (out / "state.pt").write_bytes(state[: len(state) // 2])
    with pytest.raises(EdgekitError, match="is damaged"):
        run(recipe_file, text_file, out, steps=1, resume=True)
    short = tmp_path / "short.txt"
    short.write_text("one\n\ntwo\n")
    with pytest.raises(EdgekitError, match="at least 10 documents"):
        run(recipe_file, short, tmp_path / "new", steps=1)
    short.write_text("\n\n".join("abcdefghij"))
    with pytest.raises(EdgekitError, match="training text must have at least"):
        run(recipe_file, short, tmp_path / "new", steps=1)
    with pytest.raises(EdgekitError, match=r"lists no \[\[package\]\]"):
        run(recipe_file, None, tmp_path / "new", steps=1)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, recipe_file: Path, text_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("0.02", "1e30"))
    with pytest.raises(EdgekitError, match="must stay finite"):
        run(recipe_file, text_file, tmp_path / "out")
