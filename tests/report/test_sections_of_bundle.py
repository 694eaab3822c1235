"""The report on what a bundle is: its cache, operators, engines and provenance."""

from __future__ import annotations

from edgekit.bundle import Bundle
from tests.report.documents import ENGINE, with_manifest
from tests.report.reading import facts, report, section, table, text, tiles


def test_the_cache_beside_others(bare: Bundle) -> None:
    cache = {**bare.manifest.raw["cache"], "bytes_per_token": 3000, "bytes_per_token_of": {"MHA": 12_000, "MQA": 1500}}
    part = section(report(with_manifest(bare, cache=cache)), "cache")
    assert facts(part)["bytes per token"] == "3,000"
    assert "0.250 of MHA, 2.00 of MQA" in text(part)
    limit = bare.manifest.cache.capacity_limit
    last = list(table(part, "Numbers: Memory of the cache for one sequence").values())[-1]
    assert last[0].split()[0] == f"{3000 * limit / 1e6:.2f}"


def test_custom_operators_with_the_forms_they_have(bare: Bundle) -> None:
    uses = [{"name": "TPAAttention", "version": 1, "nodes": 5}, {"name": "Unheard", "version": 2, "nodes": 1}]
    part = section(report(with_manifest(bare, operators=uses)), "operators")
    rows = table(part, "Custom operators, and the forms in which each can run")
    assert rows["TPAAttention"] == ["1", "5", "available", "in the graph", "available", "available"]
    assert rows["Unheard"] == ["2", "1", "none", "in the graph", "none", "none"]


def test_provenance_has_hashes_rules_and_versions(bare: Bundle) -> None:
    fields = {
        "provenance": {
            "checkpoint": {
                "path": "tiny.gguf",
                "location": "/models/tiny.gguf",
                "format": "gguf",
                "files": [{"name": "tiny.gguf", "bytes": 98_362_432, "sha256": "b1" * 32}],
            }
        },
        "versions": {"torch": "9.8.7"},
        "rules": {
            "fuse_gqa": {"fired": 30, "refused": []},
            "fold": {"fired": 2, "refused": [{"node": "n7", "reason": "it has another reader"}]},
            "idle_rule": {"fired": 0, "refused": []},
        },
        "quantization": {"bits": 8, "weight_bytes": 155_492_352, "origin": {"rounded": 210}},
        "recipe": {"file": "tiny.cpu.toml"},
    }
    bundle = with_manifest(bare, **fields)
    root = report(bundle)
    part = section(root, "provenance")
    found = facts(part)
    assert found["SHA-256 of tiny.gguf"] == "b1" * 32 + "98,362,432 bytes"
    assert "torch 9.8.7" in found["written by"]
    assert found["recipe"] == "tiny.cpu.toml"
    assert found["manifest"].startswith(bundle.manifest_sha256)
    assert found["quantisation weight bytes"] == "155,492,352 (155 MB)"
    rules = table(part, "Rewrite rules; nothing to do for idle_rule")
    assert rules == {"fuse_gqa": ["30", "0", ""], "fold": ["2", "1", "n7: it has another reader"]}
    hashes = table(part, f"SHA-256 of {len(bundle.manifest.files)} files")
    assert {name: row[1] for name, row in hashes.items()} == {e.name: e.sha256 for e in bundle.manifest.files}
    assert "checkpoint 98.4 MB" in tiles(root)["Size"]


def test_engines_with_what_they_take(bare: Bundle) -> None:
    assert "engines" not in {part.get("id") for part in report(bare).iter("section")}
    part = section(report(with_manifest(bare, engines=[ENGINE])), "engines")
    purpose = table(part, "What each is for")["sm89-fp16fp16"]
    assert purpose == [
        "tensorrt-rtx 1.7.1.116weight_streaming",
        "SM 89for rtx-4090",
        "1 sequence, 1,024 new tokens at once, 4,096 in all",
    ]
    costs = table(part, "What each takes")["sm89-fp16"]
    assert costs == ["271 MB", "not told", "12.3 MB", "61.5 s", "1.23 GB"]
    assert table(part, "Plugins that they call")["sm89-fp16: TPAAttention"] == ["1", "5", "tokenizer.json" + "d" * 64]
