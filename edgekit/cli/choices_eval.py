"""What `edgekit eval --choices` does: multiple-choice questions for a bundle or a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgekit.evaluate.choice_task import ChoiceTask
    from edgekit.evaluate.choices import ChoiceResult
    from edgekit.progress import Progress


def evaluate_choices(
    subject: Path,
    file: Path,
    limit: int | None,
    against: str | None,
    baseline: Path | None,
    settings: dict[str, Any],
    offline: bool,
    as_json: bool,
) -> None:
    """Ask all, and the same of what is compared with; print it.

    Args:
        subject: a bundle, or what `open_checkpoint` takes.
        settings: backend, operators, threads, resume.
    """
    from edgekit.cli.display_progress import displayed_progress
    from edgekit.evaluate.choice_task import read_questions
    from edgekit.evaluate.choices import difference

    task = read_questions(file)
    reference: tuple[str, ChoiceResult] | None = None
    with displayed_progress() as progress:
        if against is not None:
            found = _of_checkpoint(against, task, limit, settings, offline, progress)
            reference = f"{against}, PyTorch float32", found
        elif baseline is not None:
            reference = str(baseline), _of_bundle(baseline, task, limit, settings, progress)
        if is_bundle(subject):
            name, result = str(subject), _of_bundle(subject, task, limit, settings, progress)
        else:
            name = f"{subject}, PyTorch float32"
            result = _of_checkpoint(str(subject), task, limit, settings, offline, progress)
    document: dict[str, Any] = {
        "subject": name,
        "task": {"name": task.name, "sha256": task.sha256, "questions": len(task.questions)},
        **result.to_dict(),
        "reference": None,
    }
    if reference is not None:
        document["reference"] = {
            "name": reference[0],
            **reference[1].to_dict(),
            "difference": difference(result, reference[1]),
        }
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(document)


def is_bundle(path: Path) -> bool:
    """Whether it is a directory with a manifest, and not a checkpoint."""
    from edgekit.bundle import MANIFEST_NAME

    return (path / MANIFEST_NAME).is_file()


def _of_bundle(
    path: Path, task: ChoiceTask, limit: int | None, settings: dict[str, Any], progress: Progress
) -> ChoiceResult:
    from edgekit.bundle import read_bundle, require_kind
    from edgekit.evaluate.of_bundle import choices_of_bundle

    bundle = read_bundle(path)
    require_kind(bundle, "decoder", "asking questions")
    return choices_of_bundle(bundle, task, limit=limit, progress=progress, **settings)


def _of_checkpoint(
    name: str, task: ChoiceTask, limit: int | None, settings: dict[str, Any], offline: bool, progress: Progress
) -> ChoiceResult:
    from edgekit.cli.torch_needed import require_torch

    require_torch("measuring a checkpoint")
    from edgekit.checkpoint import open_checkpoint
    from edgekit.parity.reference_choices import choices_of_checkpoint

    progress.stage(f"opening {name}")
    checkpoint = open_checkpoint(name, offline=offline)
    return choices_of_checkpoint(checkpoint, task, limit=limit, resume=settings["resume"], progress=progress)


def _print(document: dict[str, Any]) -> None:
    task = document["task"]
    part = "" if document["questions"] == task["questions"] else f"the first {document['questions']:,} of "
    rows = [
        ("questions", f"{task['name']}, {part}{task['questions']:,}"),
        ("accuracy", _share(document["accuracy"], document["accuracy_error"])),
        ("by character", f"{_share(document['normalised'], document['normalised_error'])}"),
        ("chance", f"{document['chance']:.1%}"),
    ]
    if (reference := document["reference"]) is not None:
        change = reference["difference"]
        rows += [
            ("reference", reference["name"]),
            ("accuracy", _share(reference["accuracy"], reference["accuracy_error"])),
            ("by character", _share(reference["normalised"], reference["normalised_error"])),
            ("change", _points(change["accuracy"], change["accuracy_error"])),
            ("by character", _points(change["normalised"], change["normalised_error"])),
        ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def _share(value: float, error: float | None) -> str:
    return f"{value:.1%}" if error is None else f"{value * 100:.1f} ± {error * 100:.1f} %"


def _points(value: float, error: float | None) -> str:
    spread = "" if error is None else f" ± {error * 100:.1f}"
    return f"{value * 100:+.1f}{spread} percentage points"
