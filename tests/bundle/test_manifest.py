"""The typed view refuses what schema 1 does not allow, and names the field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import SCHEMA, Manifest, read_bundle
from edgekit.errors import BundleError


@pytest.fixture
def document(paper_bundle: Callable[..., Path]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((paper_bundle() / "manifest.json").read_text())
    return content


def test_fields_are_typed(document: dict[str, Any]) -> None:
    manifest = Manifest.from_dict(document)
    assert manifest.model.kv_heads == 2
    assert manifest.cache.capacity_limit == 64
    assert manifest.tokens.eos == (2,)
    assert manifest.tokens.pad is None
    assert manifest.graph.data == ("model.onnx.data",)
    assert manifest.bytes == 3 + 500 + 10240 + 8
    assert manifest.raw["provenance"] == {}


def test_unknown_fields_are_kept_and_ignored(document: dict[str, Any]) -> None:
    manifest = Manifest.from_dict({**document, "colour": "red"})
    assert manifest.raw["colour"] == "red"


@pytest.mark.parametrize("field", ["schema", "edgekit", "model", "form", "dtype", "cache", "graph", "tokens", "files"])
def test_missing_field_is_named(document: dict[str, Any], field: str) -> None:
    del document[field]
    with pytest.raises(BundleError, match=f"{field} is missing"):
        Manifest.from_dict(document)


@pytest.mark.parametrize(
    ("section", "field", "value", "named"),
    [
        ("model", "layers", 0, "model.layers must be an integer of 1 or more"),
        ("model", "layers", True, "model.layers must be an integer"),
        ("model", "layers", "30", "model.layers must be an integer"),
        ("model", "name", "", "model.name must be a text"),
        ("cache", "kind", "paged", "cache.kind must be one of shared, concat"),
        ("graph", "taps", "hidden.0", "graph.taps must be a list"),
        ("graph", "data", [1], "graph.data must be a list of texts"),
        ("tokens", "eos", [-1], "tokens.eos must be a list of token ids"),
        ("tokens", "add_bos", 0, "tokens.add_bos must be true or false"),
    ],
)
def test_mistyped_field_is_named(document: dict[str, Any], section: str, field: str, value: object, named: str) -> None:
    document[section][field] = value
    with pytest.raises(BundleError, match=named):
        Manifest.from_dict(document)


def test_section_of_the_wrong_type_is_named(document: dict[str, Any]) -> None:
    document["cache"] = [1]
    with pytest.raises(BundleError, match="cache must be an object"):
        Manifest.from_dict(document)


def test_hash_must_be_a_sha256(document: dict[str, Any]) -> None:
    document["files"][1]["sha256"] = "abc"
    with pytest.raises(BundleError, match=r"files\[1\].sha256"):
        Manifest.from_dict(document)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "C:evil", "a\nb", "a/", ".."],
)
def test_names_that_lead_elsewhere_are_refused(document: dict[str, Any], name: str) -> None:
    document["files"][0]["name"] = name
    with pytest.raises(BundleError, match="may only name files below its bundle"):
        Manifest.from_dict(document)


def test_graph_must_be_listed(document: dict[str, Any]) -> None:
    document["graph"]["data"] = ["other.data"]
    with pytest.raises(BundleError, match="other.data is not listed"):
        Manifest.from_dict(document)


def test_file_listed_twice_is_refused(document: dict[str, Any]) -> None:
    document["files"].append(document["files"][0])
    with pytest.raises(BundleError, match="it lists config.json"):
        Manifest.from_dict(document)


def _with_schema(bundle: Path, schema: int) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema, "edgekit": "9.9.9"}))


def test_newer_schema_is_refused_with_both_versions(paper_bundle: Callable[..., Path]) -> None:
    bundle = paper_bundle()
    _with_schema(bundle, SCHEMA + 1)
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle)
    assert f"schema {SCHEMA}" in caught.value.rule
    assert f"schema {SCHEMA + 1}, written by edgekit 9.9.9" in caught.value.fact
    assert "update edgekit" in caught.value.next_step


def test_older_schema_asks_for_a_new_export(paper_bundle: Callable[..., Path]) -> None:
    bundle = paper_bundle()
    _with_schema(bundle, 0)
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle)
    assert "edgekit export" in caught.value.next_step


DRAFT: dict[str, Any] = {
    "file": "draft.onnx",
    "data": ["draft.onnx.data"],
    "vocabulary": "draft_vocabulary.npy",
    "vocabulary_size": 16,
    "tokens": 4,
    "rank": 8,
    "components": 2,
    "feature_layers": [1, 2],
    "acceptance": {"greedy": [0.8, 0.6, 0.5, 0.4]},
}


def with_draft(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The document with draft heads and their files."""
    draft = {**DRAFT, "features": 2 * document["model"]["hidden_size"], **changes}
    names = ["draft.onnx", "draft.onnx.data", "draft_vocabulary.npy"]
    files = [{"name": name, "bytes": 1, "sha256": "0" * 64} for name in names]
    return {**document, "draft": draft, "files": [*document["files"], *files]}


def test_bundles_without_draft_heads_and_older_ones_have_none(document: dict[str, Any]) -> None:
    assert Manifest.from_dict(document).draft is None
    assert Manifest.from_dict({**document, "draft": None}).draft is None


def test_draft_heads_are_typed(document: dict[str, Any]) -> None:
    draft = Manifest.from_dict(with_draft(document)).draft
    assert draft is not None
    assert (draft.tokens, draft.rank, draft.components, draft.vocabulary_size) == (4, 8, 2, 16)
    assert draft.feature_layers == (1, 2)
    assert draft.files == ("draft.onnx", "draft.onnx.data", "draft_vocabulary.npy")
    assert draft.acceptance == {"greedy": (0.8, 0.6, 0.5, 0.4)}
    unmeasured = Manifest.from_dict(with_draft(document, acceptance=None)).draft
    assert unmeasured is not None
    assert unmeasured.acceptance == {}


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("file", "../draft.onnx", "may only name files below its bundle"),
        ("data", "draft.onnx.data", "draft.data must be a list"),
        ("vocabulary", 3, "draft.vocabulary must be a text"),
        ("vocabulary_size", 0, "draft.vocabulary_size must be an integer of 1 or more"),
        ("tokens", 0, "draft.tokens must be an integer of 1 or more"),
        ("rank", "8", "draft.rank must be an integer"),
        ("components", 9, "draft.components must be at most the rank, 8"),
        ("feature_layers", [1, -2], "draft.feature_layers must be a list of integers"),
        ("feature_layers", [1], "draft.features must be 1 layers of"),
        ("features", 7, "draft.features must be 2 layers of"),
        ("acceptance", [0.8], "draft.acceptance must be an object or null"),
        ("acceptance", {"greedy": 0.8}, "draft.acceptance.greedy must be a chance"),
        ("acceptance", {"greedy": [0.8] * 3}, "draft.acceptance.greedy must be a chance from 0 to 1 for each of 4"),
        ("acceptance", {"sampled": [0.8, 0.6, 0.5, 1.4]}, "draft.acceptance.sampled must be a chance"),
        ("acceptance", {"greedy": [0.8] * 4, "sampled": [0.8, 0.6, 0.5, "0.4"]}, "draft.acceptance.sampled"),
        ("acceptance", {"greedy": [0.8, 0.6, 0.5, math.nan]}, "draft.acceptance.greedy"),
        ("acceptance", {"greedy": [0.8, 0.6, 0.5, True]}, "draft.acceptance.greedy"),
    ],
)
def test_malformed_draft_heads_are_refused(document: dict[str, Any], field: str, value: object, named: str) -> None:
    with pytest.raises(BundleError, match=named):
        Manifest.from_dict(with_draft(document, **{field: value}))


@pytest.mark.parametrize("field", [name for name in DRAFT if name != "acceptance"])
def test_missing_fields_of_draft_heads_are_named(document: dict[str, Any], field: str) -> None:
    broken = with_draft(document)
    del broken["draft"][field]
    with pytest.raises(BundleError, match=f"draft.{field} is missing"):
        Manifest.from_dict(broken)


def test_draft_heads_must_be_listed(document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="every file of its draft heads") as caught:
        Manifest.from_dict(with_draft(document, vocabulary="other.npy"))
    assert "other.npy is not listed" in caught.value.fact
