"""The whole healing: fit layer by layer, distil end to end, write; resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.tm_params import TmParamsCheckpoint
from edgekit.compress.attention.balance import balanced, evened
from edgekit.compress.attention.source import CONVERTED, converted_config
from edgekit.compress.attention.write import RECORD, check_destination, new_directory
from edgekit.compress.calibration import calibration_text, calibration_tokens, whole_text
from edgekit.errors import CheckpointError, ExportError, ModelError
from edgekit.files import atomic_write
from edgekit.heal.converted_cost import expected
from edgekit.heal.curves import keep_history
from edgekit.heal.distill import Course, DistillOptions, distill
from edgekit.heal.estimate import Estimated, untold
from edgekit.heal.layerwise import LayerwiseOptions, fit_layers
from edgekit.heal.options import HealOptions, check_compute
from edgekit.heal.parameters import KEPT, all_trained
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import check_weights, model_from_checkpoint, model_on_meta
from edgekit.progress import Progress

WEIGHTS, STATE, LOG, COURSE = "fitted.safetensors", "state.json", "losses.jsonl", "distilling.pt"


def heal(
    converted: Checkpoint,
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
) -> dict[str, Any]:
    """Heal a converted checkpoint against its source; returns what healing adds to conversion.json.

    What is done is kept in a folder beside the destination until that is written, so that `resume` can go on from it.

    Args:
        text: text to train on instead of the one that edgekit carries.
        dry_run: stop after the estimate, and return that.
        estimated: told the estimate, by the time of a few steps, before the first that counts.

    Raises:
        ModelError, ExportError, CheckpointError: a checkpoint does not fit, an option or the destination is refused, or
            there is nothing to resume.
    """
    check_pair(converted, source)
    check_heal_options(options)
    check_destination(destination, overwrite=overwrite)
    text = text or calibration_text()
    tokenizer = converted.tokenizer_files()["tokenizer.json"]
    tokens = calibration_tokens(tokenizer, text, options.sequences, options.length)
    folder = destination.with_name(f".{destination.name}.healing")
    fresh: dict[str, Any] = {"layers": [], "step": 0, "seconds": 0.0}
    state = fresh
    if not dry_run:
        state = _begin(folder, converted, source, options, text, fresh, resume=resume, overwrite=overwrite)
    progress.stage("load")
    student = model_from_checkpoint(converted, max_positions=options.length)
    teacher = model_from_checkpoint(source, max_positions=options.length)
    if not dry_run and (folder / WEIGHTS).is_file():
        student.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    else:
        student.load_state_dict(rescaled(all_trained(student, options.also), evened), strict=False)
    progress.stage("time the first steps")
    needed = expected(converted, student, teacher, tokens, options, len(state["layers"]), state["seconds"])
    if dry_run:
        return needed.facts()
    estimated(needed)
    _fit(student, teacher, tokens, options, folder, state, progress)
    _distil(student, teacher, text, tokenizer, options, folder, state, progress)
    progress.stage("write")
    record = {"options": asdict(options), **state}
    _write(destination, converted, student, options, record, overwrite)
    keep_history(destination, folder / LOG)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return record


def check_pair(converted: Checkpoint, source: Checkpoint) -> None:
    """ModelError unless the first was converted from a model of the second's configuration."""
    rule = "Healing needs a converted model and the model that it was made from."
    if isinstance(converted, TmParamsCheckpoint):
        raise ModelError(
            "Healing trains factors and single weights as edgekit stores them.",
            f"{converted.path} is in the layout of Saten's training code, which trains them itself.",
            "Train it there, or compress again without --format tm_params and heal that.",
        )
    if converted.config.get("model_type") != CONVERTED:
        raise ModelError(
            rule,
            f"{converted.path} is a {converted.config.get('model_type')} that is neither converted nor compressed.",
            "Convert it first: edgekit convert CHECKPOINT -o OUT --attention tpa. Or compress it: edgekit compress.",
        )
    if source.config.get("model_type") == CONVERTED:
        raise ModelError(rule, f"{source.path} is converted itself.", "Give the original as --teacher.")
    expected = converted_config(source.config, converted.config["attention_factors"])
    for name, value in expected.items():
        if name != "architectures" and converted.config.get(name) != value:
            raise ModelError(
                rule,
                f"{name} is {converted.config.get(name)!r} here and {value!r} there.",
                "Give the checkpoint that was converted as --teacher.",
            )
    check_weights(model_on_meta(converted.config), converted)
    check_weights(model_on_meta(source.config), source)


def check_heal_options(options: HealOptions) -> None:
    """ExportError for options without sense."""
    unknown = [name for name in options.also if name not in KEPT]
    if unknown:
        raise ExportError(
            f"Healing can train {' and '.join(KEPT)} beside what was converted.", f"{unknown[0]!r} was asked for."
        )
    if options.steps is not None:
        raise ExportError("Distillation of a converted model is told in minutes.", f"{options.steps} steps were given.")
    check_compute(options)
    if options.device != "cpu":
        raise ExportError(
            "Layers of a converted model are fitted on the CPU.",
            f"{options.device} was asked for.",
            "Leave --device out; compressed checkpoints can be healed there.",
        )


def _begin(
    folder: Path,
    converted: Checkpoint,
    source: Checkpoint,
    options: HealOptions,
    text: str,
    fresh: dict[str, Any],
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """The state to go on from: that in the folder, or a fresh one."""
    job = {
        "converted": converted.files(),
        "source": source.files(),
        "text": hashlib.sha256(text.encode()).hexdigest(),
        "options": {name: value for name, value in asdict(options).items() if name != "minutes"},
    }
    job = json.loads(json.dumps(job))
    if resume:
        if not (folder / STATE).is_file():
            raise CheckpointError(
                "resuming needs a healing that was cut off", f"{folder} holds none", "leave --resume out"
            )
        state: dict[str, Any] = json.loads((folder / STATE).read_text())
        if state["job"] != job:
            raise CheckpointError(
                "a healing is resumed with the same checkpoints, text and options (--minutes may differ)",
                f"{folder} was begun with others",
                "give the same, or leave --resume out to begin again",
            )
        return state
    if (folder / STATE).is_file() and not overwrite:
        raise CheckpointError(
            "a healing that was cut off is not thrown away unasked",
            f"{folder} holds one",
            "go on with --resume, or begin again with --overwrite",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    state = {"job": job, **fresh}
    _save_state(folder, state)
    return state


def _save_state(folder: Path, state: dict[str, Any]) -> None:
    atomic_write(folder / STATE, json.dumps(state))


def _save_weights(folder: Path, student: Decoder, also: tuple[str, ...]) -> None:
    trained = {name: parameter.detach().contiguous() for name, parameter in all_trained(student, also).items()}
    atomic_write(folder / WEIGHTS, save(trained))


def _log(folder: Path, entry: dict[str, Any]) -> None:
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _fit(
    student: Decoder,
    teacher: Decoder,
    tokens: Tensor,
    options: HealOptions,
    folder: Path,
    state: dict[str, Any],
    progress: Progress,
) -> None:
    layers = len(student.model.layers)
    if options.epochs == 0 or len(state["layers"]) == layers:
        return
    progress.stage("fit layers", layers, "layers")

    def fitted(layer: int, before: float, after: float) -> None:
        _save_weights(folder, student, options.also)
        state["layers"].append({"layer": layer, "before": before, "after": after})
        _save_state(folder, state)
        _log(folder, {"layer": layer, "before": before, "after": after, "time": time.time()})

    settings = LayerwiseOptions(epochs=options.epochs, also=options.also)
    done = 1 + max((entry["layer"] for entry in state["layers"]), default=-1)
    fit_layers(student, teacher, tokens, settings, done=done, fitted=fitted, advance=progress.advance)


def _distil(
    student: Decoder,
    teacher: Decoder,
    text: str,
    tokenizer: bytes,
    options: HealOptions,
    folder: Path,
    state: dict[str, Any],
    progress: Progress,
) -> None:
    seconds = 60 * options.minutes
    if seconds == 0:
        return
    settings = DistillOptions(options.length, options.batch, options.rate, compute=options.compute)
    passages = whole_text(tokenizer, text, settings.length)
    progress.stage("distil", round(seconds), "seconds")
    parameters = all_trained(student, options.also)
    course = Course()
    if (folder / COURSE).is_file():
        kept = torch.load(folder / COURSE, weights_only=True)
        student.load_state_dict(kept.pop("weights"), strict=False)
        course = Course(**kept)
    progress.advance(int(course.seconds))

    def keep(course: Course) -> None:
        # One file, so that what it holds belongs together whenever the process dies.
        weights = {name: parameter.detach() for name, parameter in parameters.items()}
        partial = folder / f"{COURSE}.partial"
        torch.save({"weights": weights, **vars(course)}, partial)
        partial.replace(folder / COURSE)
        state.update(step=course.step, seconds=course.seconds)
        _save_state(folder, state)

    distill(
        student,
        teacher,
        passages,
        parameters,
        settings,
        seconds,
        course,
        log=lambda entry: _log(folder, entry),
        save=keep,
        advance=progress.advance,
    )


def rescaled(
    trained: Mapping[str, Tensor], rescale: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What is trained, by the names of the state dict, with `rescale` applied to each layer's own."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in trained.items():
        place, _, own = name.partition("self_attn.")
        layers.setdefault(f"{place}self_attn.", {})[own] = tensor.detach()
    return {place + own: tensor for place, found in layers.items() for own, tensor in rescale(found).items()}


def _write(
    destination: Path,
    converted: Checkpoint,
    student: Decoder,
    options: HealOptions,
    record: dict[str, Any],
    overwrite: bool,
) -> None:
    from safetensors.torch import save_file

    from edgekit.compress.attention.write import CONFIG, stored_tensor
    from edgekit.compress.attention.write import WEIGHTS as MODEL

    trained = rescaled(all_trained(student, options.also), balanced)
    with new_directory(destination, overwrite=overwrite) as draft:
        tensors = {name: stored_tensor(converted, name) for name in converted.names() if name not in trained}
        tensors |= {name: tensor.float().contiguous() for name, tensor in trained.items()}
        save_file(tensors, draft / MODEL, metadata={"format": "pt"})
        for name, contents in converted.tokenizer_files().items():
            (draft / name).write_bytes(contents)
        (draft / CONFIG).write_text(json.dumps(converted.config, indent=2) + "\n", encoding="utf-8")
        conversion = converted.path / RECORD
        before = json.loads(conversion.read_text()) if conversion.is_file() else {}
        (draft / RECORD).write_text(json.dumps({**before, "healing": record}, indent=2) + "\n", encoding="utf-8")
