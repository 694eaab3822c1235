"""The log of a healing as its curves read it."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.heal.curves import entries_of


def test_a_log_is_read_as_if_nothing_had_been_cut_off(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 2.5}, {"layer": 0, "before": 1.0}]
    log = tmp_path / "log"
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3, "lo')
    assert entries_of(log) == {"steps": [lines[0], lines[2]], "layers": [lines[3]]}
    assert entries_of(tmp_path / "none") == {"steps": [], "layers": []}
