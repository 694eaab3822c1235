"""The labelled texts that embeddings are measured on; see data/README.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SHIPPED = Path(__file__).parent / "data" / "subjects.tsv"


@dataclass(frozen=True)
class LabelledText:
    """A text, its class, and whether it is for training or for testing."""

    label: str
    training: bool
    text: str


def shipped_texts() -> list[LabelledText]:
    """Passages of addresses, labelled by their subject; training and test passages are of different addresses."""
    rows = [line.split("\t") for line in SHIPPED.read_text("utf-8").splitlines()]
    return [LabelledText(label, part == "train", text) for label, part, text in rows]
