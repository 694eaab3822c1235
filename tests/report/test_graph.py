"""What a real export's graph holds: roles and sizes against the checkpoint's sizes, worked out by hand."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.checkpoint import open_checkpoint
from edgekit.errors import BundleError
from edgekit.report.graph import graph_facts, role_of
from edgekit.report.sections.size import SCALES, bytes_by_role
from edgekit.report.source import Source
from tests.parity.tiny_models import export, write_checkpoint
from tests.report.reading import report, section, table, text

#: What is said of each domain.
WORDS = {"ai.onnx": "standard ONNX", "com.microsoft": "ONNX Runtime's own"}
HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, HEAD = 64, 96, 3, 4, 2, 16


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("made")
    tied = open_checkpoint(write_checkpoint(folder / "tied", "llama"))
    untied = open_checkpoint(write_checkpoint(folder / "untied", "llama-untied"))
    return {
        "fp32": export(tied, folder / "fp32"),
        "int8": export(tied, folder / "int8", dtype="int8"),
        "untied": export(untied, folder / "fp32-untied"),
    }


def parts(bundle: Bundle) -> dict[str, int]:
    facts = graph_facts(bundle)
    assert facts is not None
    return bytes_by_role(facts, (bundle.path / "model.onnx.data").stat().st_size)


def weights(vocab: int) -> dict[str, int]:
    """Numbers in each role of the tiny model."""
    attention = (HEADS + 2 * KV_HEADS) * HEAD * HIDDEN + HEADS * HEAD * HIDDEN
    return {
        "embedding": vocab * HIDDEN,
        "attention": LAYERS * attention,
        "MLP": LAYERS * 3 * HIDDEN * MLP,
        "norms": (2 * LAYERS + 1) * HIDDEN,
        "position tables": 256 * HEAD,
    }


def test_bytes_by_role_without_quantisation(bundles: dict[str, Bundle]) -> None:
    found, vocab = parts(bundles["untied"]), bundles["untied"].manifest.model.vocab_size
    expected = {role: 4 * numbers for role, numbers in weights(vocab).items()}
    assert {role: found[role] for role in expected} == expected
    assert found["output head"] == expected["embedding"]
    assert SCALES not in found


def test_what_embedding_and_head_share_is_counted_once(bundles: dict[str, Bundle]) -> None:
    vocab = bundles["int8"].manifest.model.vocab_size
    found = parts(bundles["int8"])
    assert found["embedding and output head"] == vocab * HIDDEN
    assert not {"embedding", "output head"} & set(found)
    expected = weights(vocab)
    assert found["attention"] == expected["attention"]
    assert found["MLP"] == expected["MLP"]
    assert found["norms"] == 4 * expected["norms"]
    # Of each 32 codes a scale of 4 bytes and a zero point of 1. The head's zero points are so few here that they are
    # in the ONNX file itself, where nothing is shared.
    blocks = (expected["embedding"] + expected["attention"] + expected["MLP"]) // 32
    assert found[SCALES] == 5 * blocks + expected["embedding"] // 32
    assert "stored once" in text(section(report(bundles["int8"]), "size"))


@pytest.mark.parametrize("name", ["fp32", "int8", "untied"])
def test_the_parts_make_the_whole(name: str, bundles: dict[str, Bundle]) -> None:
    bundle = bundles[name]
    facts = graph_facts(bundle)
    assert facts is not None
    data = (bundle.path / "model.onnx.data").stat().st_size
    assert facts.external_bytes <= data
    inline = sum(constant.bytes for constant in facts.constants) - facts.external_bytes
    assert 0 <= inline < (bundle.path / "model.onnx").stat().st_size
    assert sum(parts(bundle).values()) == data + inline
    rows = table(section(report(bundle), "size"), "Constants of the graph")
    shown = {role: int(row[1].replace(",", "")) for role, row in rows.items()}
    assert shown.pop("all") == sum(shown.values()) == data + inline
    assert shown == parts(bundle)


def test_nodes_are_counted_by_domain(bundles: dict[str, Bundle]) -> None:
    import onnx

    graph = onnx.load(str(bundles["int8"].graph), load_external_data=False).graph
    expected: dict[str, int] = defaultdict(int)
    for node in graph.node:
        expected[node.domain or "ai.onnx"] += 1
    part = section(report(bundles["int8"]), "operators")
    assert f"{len(graph.node)} nodes" in text(part)
    rows = table(part, "By domain")
    shown = {name: int(row[1]) for name, row in rows.items()}
    assert shown == {f"{domain}{WORDS[domain]}": number for domain, number in expected.items()}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.embed_tokens.codes", "embedding"),
        ("lm_head.scales", "output head"),
        ("model.layers.0.self_attn.q_norm.weight", "norms"),
        ("model.layers.0.self_attn.q_a_proj+q_b_proj.codes", "attention"),
        ("model.layers.7.mlp.gate_up_proj.weight_t", "MLP"),
        ("rope.cos", "position tables"),
        ("lifted_tensor_0", "other"),
    ],
)
def test_roles_by_name(name: str, role: str) -> None:
    assert role_of(name) == role


def test_without_onnx_the_rest_is_shown(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert Source.of(bundles["int8"]).graph is None
    root = report(bundles["int8"])
    assert "pip install 'edgekit[export]'" in text(section(root, "size"))
    assert "pip install 'edgekit[export]'" in text(section(root, "operators"))
    assert table(section(root, "size"), f"Files ({len(bundles['int8'].manifest.files)})")


def test_a_graph_that_is_none_is_refused(paper_bundle: object, tmp_path: Path) -> None:
    bundle = read_bundle(paper_bundle())  # type: ignore[operator]
    with pytest.raises(BundleError, match="model.onnx is not one"):
        graph_facts(bundle)
