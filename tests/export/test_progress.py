"""What an export tells while it works."""

from __future__ import annotations

from pathlib import Path

from edgekit.checkpoint import open_checkpoint
from edgekit.export.bundle_from_checkpoint import ExportOptions, bundle_from_checkpoint
from edgekit.progress import SilentProgress
from tests.parity.tiny_models import write_checkpoint


class Counts(SilentProgress):
    """Stage -> its total and how far it got."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int | None, int]] = {}

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        assert name not in self.stages
        self.name = name
        self.stages[name] = (total, 0)

    def advance(self, n: int = 1) -> None:
        total, done = self.stages[self.name]
        self.stages[self.name] = (total, done + n)


def test_every_stage_that_counts_reaches_its_total(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "weights", "llama-untied"))
    options = ExportOptions("int4", calibration_sequences=2, calibration_length=32)
    counts = Counts()
    bundle_from_checkpoint(checkpoint, tmp_path / "bundle", options, progress=counts)
    assert [name for name in ("trace", "rewrite", "write", "hash") if name not in counts.stages] == []
    assert counts.stages["write"][0] is not None
    assert counts.stages["write"][0] > 20  # more than the products of three layers
    for name, (total, done) in counts.stages.items():
        assert done == (total or 0), name
