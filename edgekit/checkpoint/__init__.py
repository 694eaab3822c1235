"""Checkpoints: weights, configuration and tokenizer from GGUF files and Hugging Face directories. Needs no torch."""

from __future__ import annotations

from edgekit.checkpoint.interface import Checkpoint, FileRecord, QuantBlocks, TensorSpec
from edgekit.checkpoint.opening import open_checkpoint
from edgekit.checkpoint.pulling import pull

__all__ = ["Checkpoint", "FileRecord", "QuantBlocks", "TensorSpec", "open_checkpoint", "pull"]
