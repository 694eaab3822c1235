"""Perplexity of a text under the original model in PyTorch, measured once and kept."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.checkpoint import Checkpoint
from edgekit.evaluate.of_bundle import measurement_key
from edgekit.evaluate.perplexity import EncodedText, Perplexity, measure
from edgekit.evaluate.progress_file import ProgressFile
from edgekit.evaluate.windows import WindowPlan
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.torch_session import TorchSession
from edgekit.progress import Progress


def perplexity_of_checkpoint(
    checkpoint: Checkpoint,
    text: EncodedText,
    plan: WindowPlan,
    *,
    max_windows: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Perplexity:
    """Measure in float32; windows of an earlier measurement of the same files, text and settings are taken over.

    Raises:
        ModelError: the checkpoint's model cannot be built.
    """
    file = ProgressFile(measurement_key(checkpoint_key(checkpoint), text, plan))
    if resume:
        file.load()

    def opened() -> TorchSession:
        return TorchSession(model_from_checkpoint(checkpoint, max_positions=plan.context))

    return measure(opened, text, plan, file=file, max_windows=max_windows, progress=progress)


def checkpoint_key(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that numbers of a checkpoint in PyTorch depend on, beside what it is asked. Hashes its files."""
    files = sorted((entry["name"], entry["sha256"]) for entry in checkpoint.files())
    return {
        "checkpoint": [list(file) for file in files],
        "torch": torch.__version__,
        "dtype": "float32",
        "threads": torch.get_num_threads(),
    }
