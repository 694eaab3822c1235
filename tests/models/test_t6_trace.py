"""What tracing makes of a T6: one attention node per layer, and nothing that targets do not take."""

from __future__ import annotations

from collections import Counter

import pytest

from edgekit.export.trace import traced_from_config
from tests.models.t6_tools import CONFIG, VARIANTS

pytestmark = pytest.mark.filterwarnings("ignore:.*(axis name|LeafSpec):")

#: By hand, per layer: two norms, gate * act(gate) * up, two sums; the head and the kept positions once.
COMMON = {"RMSNormalization": 5, "Sigmoid": 2, "Mul": 4, "Add": 4, "Gather": 1, "Neg": 1, "Slice": 1}


@pytest.mark.parametrize(
    ("name", "linears", "reshapes"),
    [
        ("t6", 10, 7),  # six factors, output, three of the MLP; each factor and the output reshaped
        ("static-a-kv-only", 7, 4),
        ("shared-b", 9, 6),
    ],
)
def test_operators(name: str, linears: int, reshapes: int) -> None:
    traced = traced_from_config(CONFIG | VARIANTS[name])
    found = Counter(node.op for node in traced.graph.nodes if node.op not in ("Constant", "Identity"))
    expected = Counter(COMMON)
    expected |= Counter({"MatMul": 2 * linears + 1, "Transpose": 2 * linears + 1, "Reshape": 2 * reshapes})
    expected["TPAAttention"] = 2
    assert found == expected


def test_static_b_is_composed_of_what_targets_take() -> None:
    traced = traced_from_config(CONFIG | VARIANTS["static-b"])
    found = Counter(node.op for node in traced.graph.nodes)
    assert found["TPAAppend"] == 4
    assert "TPAAttention" not in found
    assert not {"SplitToSequence", "SequenceAt", "GatherND", "Loop", "If"} & set(found)
