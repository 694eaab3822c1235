"""Cells of the table, and sentences about what is beaten and what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.bundle import read_bundle
from edgekit.compare.pareto import Standing
from edgekit.compare.run import Comparison, Row
from edgekit.compare.subject import Subject
from edgekit.compare.words import beaten_lines, changed, head_and_rows, warnings
from edgekit.errors import SessionError
from edgekit.report.numbers import NO_BREAK_SPACE


@pytest.mark.parametrize(
    ("ratio", "error", "expected"),
    [(1.0035, 0.0009, "+0.35 ± 0.09 %"), (0.99, 0.002, "−1.00 ± 0.20 %"), (1.5, None, "+50.00 %")],
)
def test_a_change_with_its_error(ratio: float, error: float | None, expected: str) -> None:
    assert changed(ratio, error).replace(NO_BREAK_SPACE, " ") == expected


def test_sentences(decoders: Path) -> None:
    rows = {}
    for name in ("fp32", "int8", "int4"):
        bundle = read_bundle(decoders / name)
        rows[name] = Row(Subject(name, bundle.path, bundle), name == "fp32")
    rows["int8"].standing = Standing("int4", certain=False, faster=1.25)
    rows["int4"].failures = {
        "speed": SessionError("answers must be right", "they are not"),
        "quality": SessionError("x"),
    }
    found = Comparison(False, tuple(rows.values()), {}, {}, {})
    assert beaten_lines(found) == [
        "int8 is beaten by int4 in size and in quality (in perplexity within the error); "
        "it is 1.25 × as fast (tokens/s)"
    ]
    assert "FAILED: speed of int4: answers must be right: they are not" in warnings(found)
    head, cells = head_and_rows(found)
    assert all(len(row) == len(head) for row in cells)
    assert (cells[1][0], cells[1][-1]) == ("int8", "int4")
    assert cells[2][head.index("perplexity")] == cells[2][head.index("tokens/s")] == "FAILED"
