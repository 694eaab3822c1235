"""Healing a compressed checkpoint: factors and single weights against the original, in the same bytes; resumable."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.compressed import RECORD, CompressedCheckpoint
from edgekit.checkpoint.safetensors_header import read_safetensors_header
from edgekit.compress.attention.write import check_destination, new_directory
from edgekit.compress.calibration import calibration_text, whole_text
from edgekit.compress.encoder import enclosed
from edgekit.compress.layerwise.write import WEIGHTS
from edgekit.compress.saten.storage import Arrays
from edgekit.contract import KIND_ENCODER
from edgekit.errors import ModelError
from edgekit.heal.curves import keep_history
from edgekit.heal.distill import DistillOptions, keep_in_bfloat16, passages, precision
from edgekit.heal.estimate import Estimated, HealEstimate, memory_bytes, step_seconds, untold, work_bytes
from edgekit.heal.likeness import Likeness, likeness_of
from edgekit.heal.options import HealOptions, check_compute
from edgekit.heal.trainable import Trainable
from edgekit.models.registry import encoder_from_checkpoint, encoder_on_meta, kind_of, model_from_checkpoint
from edgekit.progress import Progress
from edgekit.workplace import begin

LOG, COURSE = "losses.jsonl", "course.pt"
#: One passage of so many is never trained on, and tells whether training helped; at most HELD_OUT.
HELD_OUT_OF, HELD_OUT = 12, 12
#: Share of a step's time that its forward pass takes.
FORWARD_SHARE = 0.4
WARMUP = 10
#: A good `HealOptions.rate`: codes of 4 bits change only by whole numbers.
COMPRESSED_RATE = 1e-2
#: Keys of configurations that say nothing of the model.
_ABOUT = {"architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype"}


def heal_compressed(
    compressed: CompressedCheckpoint,
    source: Checkpoint,
    destination: Path,
    options: HealOptions,
    *,
    text: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    estimated: Estimated = untold,
    progress: Progress,
    save_every: float = 60.0,
) -> dict[str, Any]:
    """Heal a compressed checkpoint against its original; returns what healing adds to compression.json.

    Args:
        dry_run: stop after the estimate, and return that.
        estimated: told the estimate, by the time of a few steps, before the first that counts.

    Raises:
        ModelError, ExportError, CheckpointError: as `edgekit.heal.heal.heal`; nothing can be trained.
    """
    check_original(compressed, source)
    check_compute(options)
    check_destination(destination, overwrite=overwrite, record=RECORD)
    folder = destination.with_name(f".{destination.name}.healing")
    contents = text or calibration_text()
    progress.stage("load")
    tokens = training_passages(compressed, contents, options.length)
    build: Callable[..., Any] = (
        encoder_from_checkpoint
        if kind_of(compressed.config) == KIND_ENCODER
        else lambda c: model_from_checkpoint(c, max_positions=options.length)
    )
    student, teacher = build(compressed), build(source)
    trained = Trainable(student, compressed, options.also, source)
    likeness, (rows, held) = likeness_of(compressed), split(tokens)
    if options.compute == "bfloat16":
        keep_in_bfloat16([*student.parameters(), *teacher.parameters()])
    student.to(options.device)
    teacher.to(options.device)
    rows, held = rows.to(options.device), held.to(options.device)
    if not dry_run:
        begin(folder, _job(compressed, source, options, contents), resume=resume, overwrite=overwrite)
    progress.stage("time the first steps")
    step_s = step_seconds(lambda: _loss(student, teacher, rows[: options.batch], likeness, options))
    kept_course = folder / COURSE if resume and not dry_run else None
    course = _course(options, step_s, kept_course)
    expected = _expected(compressed, trained, course, step_s, len(held) / options.batch, options.device)
    if dry_run:
        return expected.facts()
    estimated(expected)
    course = _train(student, teacher, trained, rows, held, likeness, options, course, folder, progress, save_every)
    progress.stage("write")
    kept = course["after"] < course["before"]
    if not kept:
        progress.note("passages that were not trained on came out no better: the checkpoint is kept as it was")
    record = {
        "options": asdict(options),
        "source": source.files(),
        "steps": course["step"],
        "seconds": round(course["seconds"], 1),
        "trained_numbers": sum(parameter.numel() for parameter in trained.parameters.values()),
        "held_out": {"passages": len(held), "before": course["before"], "after": course["after"]},
        "kept": kept,
    }
    with new_directory(destination, overwrite=overwrite, record=RECORD) as draft:
        shutil.copytree(compressed.path, draft, dirs_exist_ok=True)
        student.cpu()
        rewrite(draft / WEIGHTS, trained.arrays() if kept else {})
        before = json.loads((draft / RECORD).read_text()) if (draft / RECORD).is_file() else {}
        healings = [*before.get("healing", []), record]
        (draft / RECORD).write_text(json.dumps({**before, "healing": healings}, indent=2) + "\n", encoding="utf-8")
    keep_history(destination, folder / LOG, record["held_out"])
    shutil.rmtree(folder)
    return record


def check_original(compressed: CompressedCheckpoint, source: Checkpoint) -> None:
    """ModelError unless the configurations are of the same model, and the second is not compressed."""
    rule = "Healing needs a compressed checkpoint and the one that it was made from."
    if isinstance(source, CompressedCheckpoint):
        raise ModelError(rule, f"{source.path} is compressed itself.", "Give the original as --teacher.")
    one, other = (json.loads(json.dumps(each.config)) for each in (compressed, source))
    for name in sorted((one.keys() | other.keys()) - _ABOUT):
        if one.get(name) != other.get(name):
            raise ModelError(
                rule,
                f"{name} is {one.get(name)!r} here and {other.get(name)!r} there.",
                "Give the checkpoint that was compressed as --teacher.",
            )


def training_passages(checkpoint: Checkpoint, text: str, length: int) -> Tensor:
    """int64 [n, length] of the whole text; an encoder's between its first and last token.

    Raises:
        ExportError: the text is too short.
    """
    contents = checkpoint.tokenizer_files()["tokenizer.json"]
    if kind_of(checkpoint.config) != KIND_ENCODER:
        return whole_text(contents, text, length)
    length = min(length, encoder_on_meta(checkpoint.config).max_positions)
    around = enclosed(contents, torch.empty(1, 0, dtype=torch.int64)).shape[1]
    return enclosed(contents, whole_text(contents, text, max(2, length - around)))


def split(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Passages to train on, and those that are held out."""
    held = torch.arange(len(tokens)) % HELD_OUT_OF == HELD_OUT_OF - 1
    held &= held.cumsum(0) <= HELD_OUT
    if not held.any() and len(tokens) > 1:
        held[-1] = True
    return (tokens[~held], tokens[held]) if held.any() else (tokens, tokens)


def _train(
    student: Any,
    teacher: Any,
    trained: Trainable,
    rows: Tensor,
    held: Tensor,
    likeness: Likeness,
    options: HealOptions,
    course: dict[str, Any],
    folder: Path,
    progress: Progress,
    save_every: float,
) -> dict[str, Any]:
    """Train in place, from where the course is; returns step, steps, seconds, before and after."""
    batch = options.batch
    optimizer = torch.optim.AdamW(trained.groups(options.rate), betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)
    if "weights" in course:
        trained.load(course.pop("weights"))
        optimizer.load_state_dict(course.pop("optimizer"))
    else:
        course["rates"] = [group["lr"] for group in optimizer.param_groups]
        course["before"] = _held_out(student, teacher, held, likeness, options)
    began, saved = time.monotonic() - course["seconds"], time.monotonic()

    def save() -> None:
        partial = folder / f"{COURSE}.partial"
        torch.save({**course, "weights": trained.state(), "optimizer": optimizer.state_dict()}, partial)
        partial.replace(folder / COURSE)

    save()
    progress.stage("distil", course["steps"], "steps")
    progress.advance(course["step"])
    while course["step"] < course["steps"]:
        fraction = course["step"] / course["steps"]
        schedule = min(1.0, (course["step"] + 1) / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))
        for group, rate in zip(optimizer.param_groups, course["rates"], strict=True):
            group["lr"] = rate * schedule
        optimizer.zero_grad()
        loss = _loss(student, teacher, passages(rows, course["step"], batch), likeness, options)
        torch.nn.utils.clip_grad_norm_(trained.parameters.values(), 10.0)
        optimizer.step()
        course["step"] += 1
        course["seconds"] = time.monotonic() - began
        with (folder / LOG).open("a", encoding="utf-8") as file:
            entry = {"step": course["step"], "seconds": course["seconds"], "loss": loss[0], "hidden": loss[1]}
            file.write(json.dumps(entry) + "\n")
        progress.advance()
        if time.monotonic() - saved >= save_every:
            save()
            saved = time.monotonic()
    save()
    for parameter in trained.parameters.values():
        parameter.requires_grad_(False)
    course["after"] = _held_out(student, teacher, held, likeness, options)
    return course


def _loss(student: Any, teacher: Any, ids: Tensor, likeness: Likeness, options: HealOptions) -> tuple[float, float]:
    """Both parts of the loss; gradients are added to the parameters'."""
    with precision(options.compute, options.device):
        found, hidden = likeness(student, teacher, ids)
    (found + DistillOptions.hidden_weight * hidden).backward()  # type: ignore[no-untyped-call]
    return found.item(), hidden.item()


def _course(options: HealOptions, step_s: float, kept: Path | None) -> dict[str, Any]:
    """Where to go on from: what was kept, or a beginning with as many steps as are asked for or the minutes hold."""
    if kept is not None and kept.is_file():
        return dict(torch.load(kept, weights_only=True))
    steps = options.steps
    if steps is None:
        steps = max(1, int(60 * options.minutes / step_s)) if options.minutes else 0
    return {"step": 0, "seconds": 0.0, "steps": steps}


def _expected(
    compressed: CompressedCheckpoint,
    trained: Trainable,
    course: dict[str, Any],
    step_s: float,
    held_steps: float,
    device: str,
) -> HealEstimate:
    """Of what is left; the passages that are held out are run forwards before and after."""
    left, nbytes = course["steps"] - course["step"], trained.nbytes
    measured = (1 if "weights" in course else 2) * FORWARD_SHARE * held_steps
    output = sum(path.stat().st_size for path in compressed.path.iterdir() if path.is_file())
    return HealEstimate(left, step_s * (left + measured), memory_bytes(nbytes, device), work_bytes(nbytes, output))


@torch.no_grad()
def _held_out(student: Any, teacher: Any, rows: Tensor, likeness: Likeness, options: HealOptions) -> float:
    """What is to be small, on passages that are not trained on."""
    with precision(options.compute, options.device):
        return sum(float(likeness(student, teacher, row[None])[0]) for row in rows) / len(rows)


def rewrite(path: Path, arrays: Arrays) -> None:
    """Put arrays in the place of those of the same names in a safetensors file; AssertionError for other bytes."""
    header = read_safetensors_header(path)
    floats = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
    with path.open("r+b") as file:
        for name, array in arrays.items():
            place = header[name]
            contents = (array.astype(floats[place.dtype]) if place.dtype in floats else array).tobytes()
            if len(contents) != place.nbytes:
                raise AssertionError(f"{name} takes {place.nbytes} bytes, not {len(contents)}")
            file.seek(place.offset)
            file.write(contents)


def _job(compressed: Checkpoint, source: Checkpoint, options: HealOptions, text: str) -> dict[str, Any]:
    chosen = {name: value for name, value in asdict(options).items() if name not in ("sequences", "epochs")}
    job = {
        "compressed": compressed.files(),
        "source": source.files(),
        "text": hashlib.sha256(text.encode()).hexdigest(),
        "options": chosen,
    }
    return dict(json.loads(json.dumps(job)))
