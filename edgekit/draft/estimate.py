"""What a training of draft heads will take, before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgekit.checkpoint import Checkpoint
from edgekit.draft.features import feature_bytes
from edgekit.draft.text import TextOptions
from edgekit.draft.train import HeadOptions, sizes_of
from edgekit.draft.trainer import TrainOptions
from edgekit.words import counted

#: Multiply-adds a second of one thread, measured on a Zen 5 core: of text that is generated (48 rows, int8), and of
#: training in bfloat16 with what is not a product. Its products are four times as fast as those of float32.
_TALK, _TRAIN = 6e10, 8e10
_FLOAT32 = 0.25
#: A step multiplies forwards, back to its inputs, and to its weights.
_TRAINING_PASSES = 3


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage on `threads` threads, and bytes on disk while it lasts."""

    threads: int
    compute: str
    talk_s: float
    features_s: float
    train_s: float
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return self.talk_s + self.features_s + self.train_s

    def line(self) -> str:
        """For people."""
        return (
            f"estimate: about {counted(max(1, round(self.seconds / 60)), 'minutes')} on "
            f"{counted(self.threads, 'threads')} (text "
            f"{self.talk_s / 60:.0f}, hidden states {self.features_s / 60:.0f}, training {self.train_s / 60:.0f}; "
            f"{self.compute} products), {self.disk_bytes / 1e9:.1f} GB on disk until it is done"
        )


def estimate(
    checkpoint: Checkpoint, heads: HeadOptions, text: TextOptions, options: TrainOptions, *, single_epochs: float
) -> Estimate:
    """From counts of multiply-adds: of the model per token, and of the heads' unembedding per position.

    Raises:
        ModelError: see `sizes_of`.
    """
    layers = len(sizes_of(checkpoint, heads).feature_layers)
    config, threads = checkpoint.config, torch.get_num_threads()
    width = int(config["hidden_size"])
    model = sum(math.prod(checkpoint.spec(name).shape) for name in checkpoint.names())
    given = 0 if text.text is None else len(text.text) // 4  # characters of a token, about
    positions = text.positions + given
    unembedding = width * heads.vocabulary * heads.tokens * _TRAINING_PASSES
    trunk = 12 * width * width * _TRAINING_PASSES
    mixture = options.epochs * (heads.rank * unembedding + trunk) if heads.rank > 1 else 0.0
    rate = _TRAIN * threads * (1.0 if options.compute == "bfloat16" else _FLOAT32)
    return Estimate(
        threads,
        options.compute,
        text.positions * model / (_TALK * threads),
        positions * model / rate,
        positions * (single_epochs * (unembedding + trunk) + mixture) / rate,
        feature_bytes(positions, layers * width),
    )
