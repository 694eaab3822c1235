"""From what a user types to an open checkpoint."""

from __future__ import annotations

from pathlib import Path

from edgekit.checkpoint.compressed import CompressedCheckpoint, is_compressed_directory
from edgekit.checkpoint.gguf_file import GgufCheckpoint
from edgekit.checkpoint.hugging_face import HuggingFaceCheckpoint
from edgekit.checkpoint.interface import Checkpoint
from edgekit.checkpoint.pulling import pull
from edgekit.checkpoint.reference import local_path
from edgekit.checkpoint.t6_training import T6TrainingCheckpoint, is_t6_training_directory
from edgekit.checkpoint.tm_params import TmParamsCheckpoint, is_tm_params_directory


def open_checkpoint(ref: str | Path, *, offline: bool = False) -> Checkpoint:
    """Opens a GGUF file, a Hugging Face directory, a compressed one, one with the layers of Saten's training code, a
    directory of the T6 training code, a known name, or OWNER/NAME of the model hub.

    A known name is taken as such even where a file of that name exists: write ./NAME for the file. What is not local
    is pulled into the cache first, unless `offline`.

    Raises CheckpointError for what is none of these, or damaged, or not understood.
    """
    path = local_path(ref)
    if path is None:
        path = pull(str(ref), offline=offline)
    if path.is_dir() and is_t6_training_directory(path):
        return T6TrainingCheckpoint(path)
    if path.is_dir() and is_compressed_directory(path):
        return CompressedCheckpoint(path)
    if path.is_dir() and is_tm_params_directory(path):
        return TmParamsCheckpoint(path)
    return HuggingFaceCheckpoint(path) if path.is_dir() else GgufCheckpoint(path)
