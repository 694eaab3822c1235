"""Which operator domains a written model imports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.export.write import MODEL_FILE, write_model
from tests.parity.tiny_models import export, write_checkpoint


def graph(domain: str, inner_domain: str = "") -> gs.Graph:
    """One node of `domain`, and an If whose branches have one of `inner_domain`; three more domains are imported."""
    x, y, z = (gs.Variable(name, np.float32, [2]) for name in "xyz")
    flag = gs.Variable("flag", np.bool_, [])
    branches = {}
    for name in ("then_branch", "else_branch"):
        out = gs.Variable(name, np.float32, [2])
        inner = gs.Node("Softplus", inputs=[y], outputs=[out], domain=inner_domain)
        branches[name] = gs.Graph([inner], outputs=[out], opset=23, name=name)
    nodes = [gs.Node("Relu", inputs=[x], outputs=[y], domain=domain), gs.Node("If", "if", branches, [flag], [z])]
    imports = [onnx.helper.make_opsetid(*entry) for entry in (("", 23), ("first", 4), ("second", 5), ("third", 6))]
    return gs.Graph(nodes, inputs=[flag, x], outputs=[z], opset=23, import_domains=imports)


def imported(model: onnx.ModelProto) -> dict[str, int]:
    return {entry.domain: entry.version for entry in model.opset_import}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (graph(""), {"": 23}),
        (graph("second"), {"": 23, "second": 5}),
        (graph("", "third"), {"": 23, "third": 6}),
        (graph("first", "third"), {"": 23, "first": 4, "third": 6}),
    ],
    ids=["standard", "one", "in a branch", "both"],
)
def test_the_domains_of_nodes_are_imported_and_no_others(
    made: gs.Graph, expected: dict[str, int], tmp_path: Path
) -> None:
    assert imported(write_model(made, tmp_path)) == expected
    assert imported(onnx.load(tmp_path / MODEL_FILE)) == expected


@pytest.mark.parametrize(("form", "domains"), [("ort", {"", "com.microsoft"}), ("portable", {""})])
def test_a_bundle_imports_nothing_of_the_trace(form: str, domains: set[str], tmp_path: Path) -> None:
    """The trace has operators of edgekit's own, which the rules replace."""
    bundle = export(open_checkpoint(write_checkpoint(tmp_path / "weights", "llama")), tmp_path / "bundle", form)
    assert set(imported(onnx.load(bundle.graph, load_external_data=False))) == domains
