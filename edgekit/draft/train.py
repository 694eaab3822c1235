"""The whole training: text → hidden states → single heads → mixture heads → one file. Resumable at any moment."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.checkpoint import Checkpoint
from edgekit.draft.batches import Frozen
from edgekit.draft.config import DraftConfig
from edgekit.draft.features import FeatureCache, cached_features, narrowed
from edgekit.draft.head_file import DraftFile, write_heads
from edgekit.draft.initial import first_heads, grown
from edgekit.draft.text import Text, TextOptions, text_tokens
from edgekit.draft.tokens import Student, TokenReader, kept_states
from edgekit.draft.trainer import Course, TrainOptions, steps_of, train_heads, windows_of
from edgekit.draft.vocabulary import frequent_tokens
from edgekit.draft.workplace import begin
from edgekit.errors import ModelError
from edgekit.files import atomic_file, atomic_write
from edgekit.heal.full_attention import head_of
from edgekit.models.registry import model_from_checkpoint
from edgekit.progress import Progress

#: Steps of the mixture over those of the single heads.
_MIXTURE_RATE = 0.25
COURSE, SINGLE, MIXTURE = "course.json", "single", "mixture"


@dataclass(frozen=True)
class HeadOptions:
    """Sizes that are asked for; see `DraftConfig`. `feature_layers` None takes a third, two thirds and all layers."""

    tokens: int = 4
    rank: int = 8
    vocabulary: int = 8192
    feature_layers: tuple[int, ...] | None = None
    token_rank: int = 128
    residual_rank: int = 128
    component_rank: int = 32


@dataclass(frozen=True)
class Trained:
    """What a run reached: `finished` is False for one that was stopped and can be resumed."""

    finished: bool
    seconds: float
    record: dict[str, Any]


def train(
    checkpoint: Checkpoint,
    destination: Path,
    heads: HeadOptions,
    text: TextOptions,
    options: TrainOptions,
    *,
    single_epochs: float,
    resume: bool = False,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress,
) -> Trained:
    """Train draft heads for `checkpoint` and write them to `destination`.

    Args:
        single_epochs: epochs of the single heads that the mixture grows from (all there is, at rank 1).
        stop: asked often; True stops where `resume` goes on.

    Raises:
        CheckpointError: the destination is taken, or there is nothing to resume.
        ModelError: the model's logits are capped, or it has too few layers.
        PromptError, ExportError: the text cannot be had.
        DoesNotFit: the disk is too small.
    """
    config = _sizes(checkpoint, heads)
    settings = {**asdict(options), "single_epochs": single_epochs}
    job = {"checkpoint": checkpoint.files(), "heads": asdict(heads), "text": text.identity(), "options": settings}
    folder = begin(destination, job, resume=resume, overwrite=overwrite)
    started = time.monotonic()
    found = text_tokens(checkpoint, text, folder, progress, stop)
    prepared = None if found is None else _prepared(checkpoint, config, found, options, folder, progress, stop)
    if found is None or prepared is None:
        return Trained(False, _spent(folder, time.monotonic() - started), {})
    frozen, cache, coverage = prepared
    norm = frozen.norm.weight
    config = replace(config, vocabulary=len(frozen.vocabulary))
    single = replace(config, rank=1, component_rank=0)
    courses = {SINGLE: Course()}
    reader = TokenReader(frozen.states.shape[1], config.token_rank, options.seed)
    student = Student(first_heads(single, norm, options.seed), reader)
    first = replace(options, epochs=single_epochs)
    done = _stage(SINGLE, student, cache, frozen, first, courses[SINGLE], folder, found, progress, stop)
    if done and config.rank > 1:
        courses[MIXTURE] = Course()
        student = Student(grown(student.heads, config, norm, options.seed), reader)
        # Steps as large as those of fresh heads lead away from what the single heads have learnt.
        second = replace(options, rate=_MIXTURE_RATE * options.rate)
        done = _stage(MIXTURE, student, cache, frozen, second, courses[MIXTURE], folder, found, progress, stop)
    seconds = _spent(folder, time.monotonic() - started)
    if not done:
        return Trained(False, seconds, {})
    course = courses[MIXTURE if config.rank > 1 else SINGLE]
    best = next(entry for entry in course.measured if entry["step"] == course.best_step)
    record = {
        "model": {"files": checkpoint.files(), "vocab_size": len(frozen.states)},
        "text": {**text.identity(), "positions": int(found.tokens.size), "coverage": coverage},
        "options": settings,
        "acceptance": {name: best[name] for name in ("greedy", "sampled")},
        "held_out": {name: best[name] for name in ("nats", "used", "loss", "step")},
        "seconds": seconds,
    }
    write_heads(destination, DraftFile(student.heads, reader.table(frozen.states), frozen.vocabulary, record))
    history = {name: {"losses": c.losses, "measured": c.measured} for name, c in courses.items()}
    atomic_write(destination.with_suffix(".history.json"), json.dumps(history))
    shutil.rmtree(folder)
    return Trained(True, seconds, record)


def _sizes(checkpoint: Checkpoint, heads: HeadOptions) -> DraftConfig:
    """The sizes asked for, of this model."""
    width, layers = int(checkpoint.config["hidden_size"]), int(checkpoint.config["num_hidden_layers"])
    if checkpoint.config.get("final_logit_softcapping"):
        raise ModelError("draft heads need logits that are a product with the head", "this model caps its logits")
    chosen = heads.feature_layers or tuple(sorted({max(1, layers // 3), max(1, 2 * layers // 3), layers}))
    if list(chosen) != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] != layers:
        raise ModelError(
            "draft heads read the residual stream after some layers, the last among them",
            f"layers {', '.join(map(str, chosen))} of {layers} were asked for",
            f"choose --feature-layers that ascend and end at {layers}",
        )
    return DraftConfig(
        tokens=heads.tokens,
        rank=heads.rank,
        hidden_size=width,
        feature_layers=chosen,
        token_rank=min(heads.token_rank, width),
        trunk_width=-(-width * 8 // 3 // 64) * 64,
        residual_rank=min(heads.residual_rank, width),
        component_rank=min(heads.component_rank, width) if heads.rank > 1 else 0,
        vocabulary=heads.vocabulary,
        eps=float(checkpoint.config.get("rms_norm_eps", 1e-5)),
    )


def _prepared(
    checkpoint: Checkpoint,
    config: DraftConfig,
    text: Text,
    options: TrainOptions,
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> tuple[Frozen, FeatureCache, float] | None:
    """The frozen model's part, the feature cache, and the draft vocabulary's share of the text; None when stopped."""
    progress.stage("load")
    model = model_from_checkpoint(checkpoint)
    counts = np.bincount(text.tokens[:, text.skip :].ravel(), minlength=int(checkpoint.config["vocab_size"]))
    chosen, coverage = frequent_tokens(counts, config.vocabulary, text.ends)
    vocabulary = torch.from_numpy(chosen)
    unembedding = head_of(model).detach()[vocabulary].clone()
    fast = options.compute == "bfloat16" and narrowed(model, str(checkpoint.config.get("model_type")))
    if options.compute == "bfloat16" and not fast:
        progress.note(f"{checkpoint.config.get('model_type')} is computed in float32: healing does not train it either")
    progress.stage("tokens by themselves")
    states = kept_states(folder / "states.npy", model, config.feature_layers, _beginning(checkpoint))
    progress.stage("hidden states", int(text.tokens.size), "tokens")
    cache = cached_features(
        folder / "features", model, text.tokens, config.feature_layers, advance=progress.advance, stop=stop
    )
    if cache is None:
        return None
    if fast:
        unembedding = unembedding.bfloat16()
    return Frozen(states, unembedding, model.model.norm, vocabulary), cache, coverage


def _beginning(checkpoint: Checkpoint) -> int:
    """A token that texts begin with, or the first of all."""
    found = checkpoint.config.get("bos_token_id")
    return int(found) if isinstance(found, int) else 0


def _stage(
    name: str,
    student: Student,
    cache: FeatureCache,
    frozen: Frozen,
    options: TrainOptions,
    course: Course,
    folder: Path,
    text: Text,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Train one set of heads, from where an earlier run left it; whether it is done."""
    path = folder / f"{name}.pt"
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        student.load_state_dict(kept.pop("weights"))
        vars(course).update(kept)
        course.losses = [(int(step), float(loss)) for step, loss in course.losses]
    windows, _ = windows_of(cache, student.heads.config.tokens, text.skip, text.measured)
    progress.stage(f"train {name} heads", steps_of(len(windows), options), "steps")

    def save() -> None:
        with atomic_file(path) as file:
            torch.save({"weights": student.state_dict(), **vars(course)}, file)

    train_heads(
        student,
        cache,
        frozen,
        options,
        course,
        skip=text.skip,
        measured=text.measured,
        save=save,
        advance=progress.advance,
        stop=stop,
    )
    return course.finished


def _spent(folder: Path, seconds: float) -> float:
    """Seconds of all runs so far, this one included."""
    path = folder / COURSE
    total = seconds + (json.loads(path.read_text())["seconds"] if path.is_file() else 0.0)
    atomic_write(path, json.dumps({"seconds": total}))
    return total
