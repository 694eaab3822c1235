"""The domain of edgekit's operators is named in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import edgekit.rewrite
from edgekit import contract


def test_no_rewrite_spells_the_domain() -> None:
    [folder] = edgekit.rewrite.__path__
    spelled = [
        f"{path.name}:{node.lineno}"
        for path in sorted(Path(folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Constant) and node.value == contract.OPERATOR_DOMAIN
    ]
    assert spelled == []
