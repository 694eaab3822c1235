"""The whole compression: calibrate, plan, fit each layer, write."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.compressed import RECORD, CompressedCheckpoint
from edgekit.checkpoint.tm_params import FILE as TM_FILE
from edgekit.compress.attention.write import check_destination, new_directory
from edgekit.compress.layerwise.allocate import DAMPING, probe_layer, probes, shared, timed
from edgekit.compress.layerwise.bounds import check_budget, check_plan
from edgekit.compress.layerwise.calibrate import calibrate
from edgekit.compress.layerwise.estimate import estimate
from edgekit.compress.layerwise.execute import Executor, in_processes
from edgekit.compress.layerwise.fit import LayerJob, Work, fit_layer
from edgekit.compress.layerwise.options import (
    TM_PARAMS,
    CompressOptions,
    Sizes,
    budget_of,
    sizes_of,
    weight_names,
)
from edgekit.compress.layerwise.plan import Entry, Plan, plan_from_file, settings_from
from edgekit.compress.layerwise.stack import layer_of, stack_of
from edgekit.compress.layerwise.timing import with_times
from edgekit.compress.layerwise.tm_directory import write_tm_directory
from edgekit.compress.layerwise.workplace import work_folder
from edgekit.compress.layerwise.worth import Choice
from edgekit.compress.layerwise.write import WEIGHTS, write_compressed, write_record
from edgekit.contract import KIND_ENCODER
from edgekit.errors import CheckpointError
from edgekit.files import atomic_write, sha256_of
from edgekit.models.registry import check_weights, encoder_on_meta, kind_of, model_on_meta
from edgekit.progress import Progress
from edgekit.workplace import begin

PLAN, ROUNDS = "plan.json", "rounds"


def _never() -> bool:
    return False


def compress(
    checkpoint: Checkpoint,
    destination: Path,
    options: CompressOptions,
    *,
    text: str | None = None,
    plan: Path | None = None,
    plan_only: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress,
    stopped: Callable[[], bool] = _never,
    execute: Executor | None = None,
) -> dict[str, Any] | None:
    """Compress a checkpoint into a directory at `destination`; returns what compression.json records.

    Args:
        text: calibration text instead of the one that edgekit carries.
        plan: a file to apply instead of making a plan.
        plan_only: write the plan to `destination`, a file, and fit nothing.
        resume: go on with a run that was cut off; the result is the same, bit by bit.
        stopped: asked between jobs; None is returned once it says yes.
        execute: does the jobs; None for processes of this machine.

    Raises:
        CheckpointError, ModelError, ExportError: what is given cannot be compressed so, or the destination is taken.
        DoesNotFit: it would take longer than the options allow.
    """
    sizes = checked(checkpoint, options)
    check_free(destination, plan_only=plan_only, overwrite=overwrite)
    given = asked_plan(options, sizes, plan)
    execute = execute or in_processes(options.workers)
    job = {
        "options": {key: value for key, value in asdict(options).items() if key != "workers"},
        "checkpoint": [[record["name"], record["sha256"]] for record in checkpoint.files()],
        "text": hashlib.sha256(text.encode()).hexdigest() if text is not None else None,
        "plan": sha256_of(plan) if plan is not None else None,
        "plan_only": plan_only,
    }
    folder = begin(work_folder(destination), job, resume=resume, overwrite=overwrite)
    calibration = given.calibration if given else {"sequences": options.sequences, "length": options.length}
    statistics = folder / "calibration"
    progress.stage("open")
    stack = stack_of(checkpoint, **calibration, text=text)
    if not calibrate(stack, statistics, progress, stopped):
        return None
    layers = _Layers(checkpoint, statistics, folder, execute, progress, stopped)
    if given is None:
        given = _planned(options, sizes, layers, calibration)
        if given is None:
            return None
    if plan_only:
        atomic_write(destination, given.text())
        shutil.rmtree(folder)
        known = [entry.microseconds for entry in given.entries if entry.microseconds is not None]
        return {
            "plan": str(destination),
            "matrices": len(given.entries),
            "bytes": given.nbytes,
            "expected_us": sum(own for own, _ in known) if known else None,
            "int4_us": sum(int4 for _, int4 in known) if known else None,
            "slower_than_int4": sum(own > int4 for own, int4 in known) if known else None,
        }
    by_layer: dict[int, list[Work]] = {}
    for entry in given.entries:
        work = Work(entry.matrix, entry.method, entry.nbytes, {**given.settings, **entry.settings})
        by_layer.setdefault(layer_of(entry.matrix) or 0, []).append(work)
    parts = layers.done("fit", fit_layer, by_layer, "part.{}.safetensors")
    if parts is None:
        return None
    progress.stage("write")
    with new_directory(destination, overwrite=overwrite, record=RECORD) as draft:
        if options.layout == TM_PARAMS:
            records = write_tm_directory(draft, checkpoint, parts)
        else:
            records = write_compressed(draft, checkpoint, parts, options.embeddings)
        files = (path for path in (draft / WEIGHTS, draft / TM_FILE) if path.is_file())
        found = _record(checkpoint, options, given, sizes, records, sum(path.stat().st_size for path in files))
        write_record(draft, found)
    shutil.rmtree(folder)
    return found


def checked(checkpoint: Checkpoint, options: CompressOptions) -> Sizes:
    """The sizes of a checkpoint that can be compressed so.

    Raises:
        CheckpointError, ModelError, ExportError: it cannot.
    """
    if isinstance(checkpoint, CompressedCheckpoint):
        raise CheckpointError(
            "a checkpoint is compressed once",
            f"{checkpoint.path} holds compressed matrices, whose errors would add up",
            "compress the checkpoint that it was made from",
        )
    encoder = kind_of(checkpoint.config) == KIND_ENCODER
    check_weights((encoder_on_meta if encoder else model_on_meta)(checkpoint.config), checkpoint)
    return sizes_of(checkpoint, options.keep, options.embeddings)


def check_free(destination: Path, *, plan_only: bool, overwrite: bool) -> None:
    """CheckpointError unless a compressed checkpoint, or a plan, may be written there."""
    if not (plan_only and overwrite and destination.is_file()):
        check_destination(destination, overwrite=overwrite, record=RECORD)


def asked_plan(options: CompressOptions, sizes: Sizes, plan: Path | None) -> Plan | None:
    """The plan of a file; None where there is none.

    Raises:
        ExportError: what the plan, or without one the options, ask for is no plan, or of a size that cannot be made.
    """
    if plan is None:
        check_budget(options, sizes)
        return None
    found = plan_from_file(plan, sizes.matrices)
    check_plan(found, sizes)
    return found


class _Layers:
    """Jobs for layers, in files of the work folder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        statistics: Path,
        folder: Path,
        execute: Executor,
        progress: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        self.checkpoint, self.statistics, self.folder = checkpoint, statistics, folder
        self.execute, self.progress, self.stopped = execute, progress, stopped

    def done(
        self, what: str, function: Callable[[LayerJob], int], works: Mapping[int, Sequence[Work]], file: str
    ) -> list[Path] | None:
        """Do the jobs that are not done yet; the files of all, in the order of the layers. None where stopped."""
        jobs = [
            LayerJob(
                str(self.checkpoint.path.absolute()),
                str(self.statistics.absolute()),
                layer,
                tuple(found),
                str((self.folder / file.format(layer)).absolute()),
            )
            for layer, found in sorted(works.items())
        ]
        missing = [job for job in jobs if not Path(job.result).is_file()]
        if missing:
            self.progress.stage(what, len(jobs), "layers")
            for _ in range(len(jobs) - len(missing)):
                self.progress.advance()
            if not self.execute(function, missing, lambda layer: self.progress.advance(), self.stopped):
                return None
        return [Path(job.result) for job in jobs]


def _planned(options: CompressOptions, sizes: Sizes, layers: _Layers, calibration: Mapping[str, int]) -> Plan | None:
    """The plan that the options ask for, from the work folder where it was made before; None where stopped."""
    made = layers.folder / PLAN
    if made.is_file():
        return plan_from_file(made, sizes.matrices)
    budget = budget_of(options, sizes)
    bits = 8 * budget / sizes.compressed_weights
    settings = {**options.settings, "rounds": _rounds(options, sizes, layers)}
    entries = [Entry(name, options.method, int(bits * r * k / 8), {}) for name, (r, k) in sizes.matrices.items()]
    if options.allocate:
        works: dict[int, list[Work]] = {}
        for name, found in probes(options.method, sizes.matrices, bits, settings_from(settings)).items():
            kept = settings if found[0].method == options.method else {}
            works.setdefault(layer_of(name) or 0, []).extend(
                Work(work.matrix, work.method, work.nbytes, {**kept, **work.settings}) for work in found
            )
        files = layers.done("measure what bits are worth", probe_layer, works, "probe.{}.json")
        if files is None:
            return None
        points = {name: value for path in files for name, value in json.loads(path.read_text()).items()}
        damping, chosen_from = DAMPING[kind_of(layers.checkpoint.config)], settings_from(settings)
        if options.target_ms is None:
            chosen = shared(options.method, sizes.matrices, points, budget, chosen_from, damping)
            entries = [Entry(name, options.method, each.nbytes, {}, each.loss) for name, each in chosen.items()]
        else:
            nanoseconds = int(1e6 * options.target_ms)
            fast = timed(options.method, sizes.matrices, points, nanoseconds, chosen_from, damping)
            entries = [Entry(name, options.method, c.nbytes, _of(c, options), c.loss) for name, c in fast.items()]
            bits = 8 * sum(entry.nbytes for entry in entries) / sizes.compressed_weights
    entries = with_times(entries, sizes.matrices, settings)
    about = {"checkpoint": layers.checkpoint.path.name, "bits_per_weight": round(bits, 4)}
    plan = Plan(settings, tuple(entries), dict(calibration), about)
    atomic_write(made, plan.text())
    return plan_from_file(made, sizes.matrices)


def _of(choice: Choice, options: CompressOptions) -> dict[str, Any]:
    """The settings of a matrix that has this base, and at most low rank beside it."""
    corrected = {"sparsity": "none"} if options.method == "saten-augmented" else {}
    return {"base_bits": [choice.bits], "base_blocks": [choice.block], **corrected}


def _rounds(options: CompressOptions, sizes: Sizes, layers: _Layers) -> int:
    """As many as the minutes hold; what was once chosen stays, since the next estimate may differ."""
    if options.minutes is None:
        return options.rounds
    kept = layers.folder / ROUNDS
    if not kept.is_file():
        atomic_write(kept, str(estimate(layers.checkpoint, options, sizes).rounds))
    return int(kept.read_text())


def _record(
    checkpoint: Checkpoint,
    options: CompressOptions,
    plan: Plan,
    sizes: Sizes,
    records: Mapping[str, Mapping[str, Any]],
    file_bytes: int,
) -> dict[str, Any]:
    fitted = {
        name: record for name, record in records.items() if name in sizes.matrices and record["method"] != "stored"
    }
    taken = sum(record["bytes"] for record in fitted.values())
    weights = sum(record["shape"][0] * record["shape"][1] for record in fitted.values())
    rest = sum(record["bytes"] for name, record in records.items() if name not in fitted)
    plain = sum(_plain_bytes(checkpoint, name) for name in weight_names(checkpoint) if name not in records)
    return {
        "method": ", ".join(sorted({entry.method for entry in plan.entries})),
        "source": {"path": checkpoint.path.name, "files": checkpoint.files()},
        "plan": {"settings": dict(plan.settings), "calibration": dict(plan.calibration)},
        "matrices": len(fitted),
        "matrix_bytes": taken,
        "bits_per_weight": round(8 * taken / weights, 4),
        "other_bytes": rest + plain,
        "weights_bytes": taken + rest + plain,
        "file_bytes": file_bytes,
        "ratio_to_float16": round((taken + rest + plain) / (2 * sizes.weights), 4),
        "expected_loss": sum(record["loss"] for record in fitted.values()),
    }


def _plain_bytes(checkpoint: Checkpoint, name: str) -> int:
    spec = checkpoint.spec(name)
    size = 1
    for side in spec.shape:
        size *= side
    return size * (2 if spec.dtype in ("float16", "bfloat16") else 4)
