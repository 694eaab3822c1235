"""The whole training: text → hidden states → single heads → mixture heads → one file. Resumable at any moment."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.checkpoint import Checkpoint
from edgekit.draft.batches import CachedRows, Frozen, WindowSource
from edgekit.draft.config import DraftConfig
from edgekit.draft.features import cached_features, narrowed
from edgekit.draft.head_file import DraftFile, write_heads
from edgekit.draft.initial import first_heads, grown
from edgekit.draft.live import LiveRows
from edgekit.draft.talk import TorchTalker
from edgekit.draft.text import Text, TextOptions, text_tokens
from edgekit.draft.tokens import Student, TokenReader, kept_states
from edgekit.draft.trainer import Course, TrainOptions, steps_of, train_heads, windows_of
from edgekit.draft.vocabulary import frequent_tokens
from edgekit.draft.workplace import work_folder
from edgekit.errors import CheckpointError, ModelError
from edgekit.files import atomic_file, atomic_write
from edgekit.heal.full_attention import head_of
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_checkpoint
from edgekit.progress import Progress
from edgekit.workplace import begin

COURSE, SINGLE, MIXTURE = "course.json", "single", "mixture"


@dataclass(frozen=True)
class HeadOptions:
    """Sizes that are asked for; see `DraftConfig`. `feature_layers` None takes a third, two thirds and all layers.

    also: other numbers of components to grow from the same single heads, for comparing.
    """

    tokens: int = 4
    rank: int = 8
    vocabulary: int = 8192
    feature_layers: tuple[int, ...] | None = None
    token_rank: int = 128
    residual_rank: int = 128
    component_rank: int = 32
    window: int = 64
    also: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What a run reached: `finished` is False for one that was stopped and can be resumed."""

    finished: bool
    seconds: float
    record: dict[str, Any]


@dataclass(frozen=True)
class _Prepared:
    """What heads are trained on."""

    text: Text
    frozen: Frozen
    source: WindowSource
    coverage: float


def train(
    checkpoint: Checkpoint,
    destination: Path,
    heads: HeadOptions,
    text: TextOptions,
    options: TrainOptions,
    *,
    single_epochs: float,
    mixture_rate: float = 0.25,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress,
) -> Trained:
    """Train draft heads for `checkpoint` and write them to `destination`.

    Args:
        single_epochs: epochs of the single heads that the mixture grows from (all there is, at rank 1).
        mixture_rate: steps of the mixture over those of the single heads: as large as those of fresh heads they lead
            away from what the single heads have learnt.
        device: of PyTorch. On another than the CPU the model talks with itself there, and its hidden states are
            computed anew for each step instead of kept on disk.
        stop: asked often; True stops where `resume` goes on.

    Raises:
        CheckpointError: the destination is taken, or there is nothing to resume.
        ModelError: the model's logits are capped, it has too few layers, or it cannot be trained for on that device.
        PromptError, ExportError: the text cannot be had.
        DoesNotFit: the disk is too small.
    """
    config = sizes_of(checkpoint, heads)
    settings = {
        **asdict(options), "single_epochs": single_epochs, "mixture_rate": mixture_rate, "device": device
    }  # fmt: skip
    job = {"checkpoint": checkpoint.files(), "heads": asdict(heads), "text": text.identity(), "options": settings}
    folder = begin(work_folder(destination, overwrite=overwrite), job, resume=resume, overwrite=overwrite)
    started = time.monotonic()
    prepared = _prepared(checkpoint, config, text, options, torch.device(device), folder, progress, stop)
    if prepared is None:
        return Trained(False, _spent(folder, time.monotonic() - started), {})
    frozen, seed = prepared.frozen, options.seed
    config = replace(config, vocabulary=len(frozen.vocabulary))
    norm = frozen.norm.weight.cpu()
    single = replace(config, rank=1, component_rank=0)
    student = Student(first_heads(single, norm, seed), TokenReader(frozen.states.shape[1], config.token_rank, seed)).to(
        device
    )
    courses = {SINGLE: Course()}
    first = replace(options, epochs=single_epochs)
    done = _stage(SINGLE, student, prepared, first, courses[SINGLE], folder, progress, stop)
    found = {SINGLE: student}
    second = replace(options, rate=mixture_rate * options.rate)
    sizes = {MIXTURE: config} if config.rank > 1 else {}
    for rank in heads.also:
        components = heads.component_rank if rank > 1 else 0
        sizes[f"{MIXTURE}.{rank}"] = replace(config, rank=rank, component_rank=components)
    for name, size in sizes.items():
        if not done:
            break
        courses[name] = Course()
        found[name] = Student(grown(student.heads, size, norm, seed), copy.deepcopy(student.reader)).to(device)
        done = _stage(name, found[name], prepared, second, courses[name], folder, progress, stop)
    seconds = _spent(folder, time.monotonic() - started)
    if not done:
        return Trained(False, seconds, {})
    record = {
        "model": {"files": checkpoint.files(), "vocab_size": len(frozen.states)},
        "text": {**text.identity(), "positions": int(prepared.text.tokens.size), "coverage": prepared.coverage},
        "options": settings,
        "seconds": seconds,
    }
    chosen = MIXTURE if config.rank > 1 else SINGLE
    for name in (*(f"{MIXTURE}.{rank}" for rank in heads.also), chosen):
        path = destination if name == chosen else _beside(destination, int(name.removeprefix(f"{MIXTURE}.")))
        entry = {**record, **_reached(courses[name])}
        table = found[name].reader.table(frozen.states)
        write_heads(path, DraftFile(found[name].heads.cpu(), table, frozen.vocabulary.cpu(), entry))
    history = {name: {"losses": c.losses, "measured": c.measured} for name, c in courses.items()}
    atomic_write(destination.with_suffix(".history.json"), json.dumps(history))
    shutil.rmtree(folder)
    return Trained(True, seconds, entry)


def _beside(destination: Path, rank: int) -> Path:
    """Where another mixture goes."""
    return destination.with_suffix(f".{rank}.safetensors")


def check_free(destination: Path, heads: HeadOptions) -> None:
    """Raises CheckpointError: a file of another mixture, of `heads.also`, would replace one that is there."""
    for path in (_beside(destination, rank) for rank in heads.also):
        if path.exists():
            raise CheckpointError("the destination must be free", f"{path} exists", "choose another, or --overwrite")


def _reached(course: Course) -> dict[str, Any]:
    """What the best weights of a course reached, for the record."""
    best = next(entry for entry in course.measured if entry["step"] == course.best_step)
    return {
        "acceptance": {name: best[name] for name in ("greedy", "sampled")},
        "held_out": {name: best[name] for name in ("nats", "used", "loss", "step")},
    }


def sizes_of(checkpoint: Checkpoint, heads: HeadOptions) -> DraftConfig:
    """The sizes asked for, of this model. Raises ModelError: it caps its logits, or has not these layers."""
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
    attention_heads = int(checkpoint.config["num_attention_heads"])
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
        window=heads.window,
        heads=attention_heads,
        kv_heads=int(checkpoint.config.get("num_key_value_heads") or attention_heads),
        head_size=int(checkpoint.config.get("head_dim") or width // attention_heads),
        eps=float(checkpoint.config.get("rms_norm_eps", 1e-5)),
    )


def _prepared(
    checkpoint: Checkpoint,
    config: DraftConfig,
    options: TextOptions,
    training: TrainOptions,
    device: torch.device,
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> _Prepared | None:
    """The text, the frozen model's part, and windows of the text; None when stopped."""
    cached, model = _cached(device), None
    if not cached:
        model = _model(checkpoint, training, progress).to(device)
        if head_of(model).dtype != torch.bfloat16:
            raise ModelError(
                f"training on {device.type} is for architectures that healing trains, with products of bfloat16",
                f"this is {checkpoint.config.get('model_type')}, with products of {training.compute}",
                "train with --device cpu",
            )
    talker = None if model is None else partial(TorchTalker, model, checkpoint, options)
    text = text_tokens(checkpoint, options, folder, progress, stop, talker)
    if text is None:
        return None
    if model is None:
        model = _model(checkpoint, training, progress)
    counts = np.bincount(text.tokens[:, text.skip :].ravel(), minlength=int(checkpoint.config["vocab_size"]))
    chosen, coverage = frequent_tokens(counts, config.vocabulary, text.ends)
    vocabulary = torch.from_numpy(chosen).to(device)
    unembedding = head_of(model).detach()[vocabulary].clone()
    progress.stage("tokens by themselves", len(model.model.embed_tokens.weight), "tokens")
    place = folder / "states.npy"
    states = kept_states(place, model, config.feature_layers, _beginning(checkpoint), progress.advance).to(device)
    frozen = Frozen(states, unembedding, model.model.norm, vocabulary)
    if not cached:
        source: WindowSource = LiveRows(model, text.tokens, config.feature_layers, text.skip, config.tokens)
        return _Prepared(text, frozen, source, coverage)
    progress.stage("hidden states", int(text.tokens.size), "tokens")
    place, layers = folder / "features", config.feature_layers
    cache = cached_features(place, model, text.tokens, layers, advance=progress.advance, stop=stop)
    return None if cache is None else _Prepared(text, frozen, CachedRows(cache), coverage)


def _cached(device: torch.device) -> bool:
    """Whether hidden states are kept on disk; else they are computed when wanted."""
    return device.type == "cpu"


def _model(checkpoint: Checkpoint, training: TrainOptions, progress: Progress) -> Decoder:
    """The model, its matrices in the type that products are made in."""
    progress.stage("load")
    model, model_type = model_from_checkpoint(checkpoint), str(checkpoint.config.get("model_type"))
    if training.compute == "bfloat16" and not narrowed(model, model_type):
        progress.note(f"{model_type} is computed in float32: healing does not train it either")
    return model


def _beginning(checkpoint: Checkpoint) -> int:
    """A token that texts begin with, or the first of all."""
    found = checkpoint.config.get("bos_token_id")
    return int(found) if isinstance(found, int) else 0


def _stage(
    name: str,
    student: Student,
    prepared: _Prepared,
    options: TrainOptions,
    course: Course,
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> bool:
    """Train one set of heads, from where an earlier run left it; whether it is done."""
    path, text = folder / f"{name}.pt", prepared.text
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        student.load_state_dict(kept.pop("weights"))
        vars(course).update(kept)
        course.losses = [(int(step), float(loss)) for step, loss in course.losses]
    windows, _ = windows_of(prepared.source, student.heads.config.tokens, text.skip, text.measured)
    progress.stage(f"train {name} heads", steps_of(len(windows), options), "steps")

    def save() -> None:
        with atomic_file(path) as file:
            torch.save({"weights": student.state_dict(), **vars(course)}, file)

    train_heads(
        student,
        prepared.source,
        prepared.frozen,
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
