"""Where long work keeps what it has done, for a run that was cut off to go on: a folder beside its output."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from edgekit.errors import CheckpointError
from edgekit.files import atomic_write

_JOB = "job.json"


def begin(folder: Path, job: dict[str, Any], *, resume: bool, overwrite: bool) -> Path:
    """`folder`, to work in: a fresh one, or as the run left it that is to go on.

    Args:
        job: everything that decides the result.

    Raises:
        CheckpointError: there is an unfinished run and neither `resume` nor `overwrite`; or `resume` and none, or one
            of another job.
    """
    job = json.loads(json.dumps(job))
    known = json.loads((folder / _JOB).read_text()) if (folder / _JOB).is_file() else None
    if resume:
        if known is None:
            raise CheckpointError("resuming needs a run that was cut off", f"{folder} holds none", "leave --resume out")
        if known != job:
            changed = ", ".join(sorted(name for name in {**known, **job} if known.get(name) != job.get(name)))
            raise CheckpointError(
                "a run is resumed with the same checkpoint, text and options",
                f"{folder} was begun with others: {changed}",
                "give the same, or leave --resume out and begin again with --overwrite",
            )
        return folder
    if known is not None and not overwrite:
        raise CheckpointError(
            "a run that was cut off is not thrown away unasked",
            f"{folder} holds one",
            "go on with --resume, or begin again with --overwrite",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    atomic_write(folder / _JOB, json.dumps(job))
    return folder
