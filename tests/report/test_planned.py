"""Plan against measurement: what `edgekit plan` says of the same model and device, beside a kit's figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgekit.bundle import Bundle, read_bundle, write_bundle
from edgekit.cli.plan import command
from edgekit.report.kit_result import read_kit_result
from edgekit.report.numbers import quantity
from tests.chat.tiny_bundle import write_tiny_bundle
from tests.report import documents
from tests.report.documents import ENGINE, with_manifest
from tests.report.reading import report, section, table, text

DEVICE = "jetson-orin-nano-8gb"
CAPTION = "Planned for the device, and measured on it"
ENGINE_CAPTION = "Planned for the engine, and what its build told"
#: Of the size of SmolLM2-135M.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}


#: Files of draft heads, and their bytes together: half of the model's own, so that no range holds both.
HEADS = ("draft.onnx", "draft.onnx.data")
HEAD_BYTES = 130_000_000


def with_config(folder: Path, config: dict[str, Any], *, heads: bool = False) -> Bundle:
    tiny = read_bundle(write_tiny_bundle(folder / "tiny"))
    with write_bundle(folder / "bundle") as unfinished:
        for entry in tiny.manifest.files:
            shutil.copy(tiny.path / entry.name, unfinished.path / entry.name)
        (unfinished.path / "config.json").write_text(json.dumps(config))
        if heads:
            (unfinished.path / HEADS[0]).write_bytes(b"graph")
            (unfinished.path / HEADS[1]).write_bytes(bytes(HEAD_BYTES - len(b"graph")))
        skipped = ("schema", "edgekit", "files")
        unfinished.manifest.update({name: value for name, value in tiny.manifest.raw.items() if name not in skipped})
    bundle = read_bundle(folder / "bundle")
    return with_manifest(bundle, draft=draft_entry(bundle)) if heads else bundle


def draft_entry(bundle: Bundle) -> dict[str, Any]:
    return {
        "file": HEADS[0], "data": [HEADS[1]], "vocabulary": "tokenizer.json", "vocabulary_size": 9, "tokens": 3,
        "rank": 2, "components": 2, "feature_layers": [1], "features": bundle.manifest.model.hidden_size,
        "acceptance": None,
    }  # fmt: skip


def shown(bundle: Bundle, folder: Path, **changes: Any) -> Any:
    """The plan section with a kit's result."""
    result = documents.kit_result(**changes)
    result["kit"] |= {"device": DEVICE, "dtype": "fp16"} | changes.get("kit", {})
    file = folder / "result.json"
    file.write_text(json.dumps(result))
    return section(report(bundle, read_kit_result(file)), "plan")


def planned(bundle: Bundle, *arguments: str, device: str = DEVICE) -> dict[str, Any]:
    """What the verb says."""
    config = str(bundle.path / "config.json")
    result = CliRunner().invoke(command, [config, "--device", device, "--dtype", "fp16", "--json", *arguments])
    assert result.exception is None, result.exception
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def test_the_plan_of_the_verb_beside_what_a_kit_measured(tmp_path: Path) -> None:
    bundle = with_config(tmp_path, CONFIG)
    decode = planned(bundle, "--context", "131")["speed"]["tokens_per_s"]
    first = planned(bundle, "--context", "512", "--prompt", "512")["speed"]["first_token_s"]
    bench = documents.bench()
    bench["decodes"][0]["tokens_per_s"] = documents.samples([decode["value"] * 0.95, decode["value"]])
    bench["prompts"][0]["ttft_s"] = documents.samples([first["high"] * 1.5])
    rows = table(shown(bundle, tmp_path, benchmark=bench), CAPTION)

    def cell(estimate: dict[str, float], unit: str) -> str:
        parts = [quantity(estimate[name], unit).replace("\N{NO-BREAK SPACE}", " ") for name in ("value", "low", "high")]
        return f"{parts[0]}{parts[1]} to {parts[2]}"

    assert rows["decode, 128 in the cache"] == [
        cell(decode, "tokens/s"), f"{decode['value'] * 0.975:.0f} tokens/s", "0.975", "within",
    ]  # fmt: skip
    assert rows["prompt of 512, first token"][0] == cell(first, "s")
    assert rows["prompt of 512, first token"][3] == "outside"


def test_the_release_of_the_kit_is_what_is_planned_for(tmp_path: Path) -> None:
    """JetPack 6.2 has no cache in place: a step moves three times the cache's bytes."""
    bundle = with_config(tmp_path, CONFIG)
    kit = documents.kit_result()["kit"]
    newest = table(shown(bundle, tmp_path), CAPTION)
    older = table(shown(bundle, tmp_path, kit={**kit, "software": "JetPack 6.2"}), CAPTION)

    def rate(rows: dict[str, list[str]]) -> float:
        return float(rows["decode, 128 in the cache"][0].split(" ")[0])

    assert rate(older) < rate(newest)


def test_memory_of_a_build_on_the_device(tmp_path: Path) -> None:
    bundle = with_config(tmp_path, CONFIG)
    memory = planned(bundle, "--context", str(bundle.manifest.cache.capacity_limit))["build"]["memory"]
    build = {"build_seconds": 100.0, "build_peak_memory_bytes": int(memory["value"])}
    rows = table(shown(bundle, tmp_path, build={"engine": build}, benchmark=None), CAPTION)
    assert rows["build: peak memory"][2:] == ["1.00", "within"]


def test_what_an_engine_takes(tmp_path: Path) -> None:
    bundle = with_config(tmp_path, CONFIG)
    limits = ("--context", "4096", "--batch", "1", "--max-input-len", "1024")
    facts = planned(bundle, *limits, device="rtx-4090")
    items = facts["memory"]["items"]
    engine = {
        **ENGINE,
        "weights_bytes": round(items["weights"]["value"] * 1.0001),
        "activation_bytes": round(items["activations"]["high"] * 1.2),
        "build_seconds": facts["build"]["seconds"]["value"] * 0.9,
        "build_peak_memory_bytes": None,
    }
    rows = table(section(report(with_manifest(bundle, engines=[engine])), "plan"), ENGINE_CAPTION)
    assert list(rows) == ["weights", "activations", "build: time"]
    assert rows["weights"][2:] == ["1.00", "within"]
    assert rows["activations"][3] == "outside"
    assert rows["build: time"][2:] == ["0.900", "within"]


def test_an_engine_with_draft_heads_is_held_against_both(tmp_path: Path) -> None:
    bundle = with_config(tmp_path, CONFIG, heads=True)
    limits = ("--context", "4096", "--batch", "1", "--max-input-len", "1024")
    # Of the configuration alone, in which there are no heads.
    plain = planned(bundle, *limits, device="rtx-4090")
    weights, activations = (plain["memory"]["items"][name]["value"] for name in ("weights", "activations"))
    heads = {
        "file": HEADS[0],
        "profiles": [],
        "graph_sha256": "1" * 64,
        "cache_key": "2" * 64,
        "engine_bytes": HEAD_BYTES,
        "weights_bytes": HEAD_BYTES,
        "activation_bytes": 5,
        "build_seconds": 3.0,
        "build_peak_memory_bytes": 700_000_000,
    }
    engine = {**ENGINE, "weights_bytes": round(weights), "activation_bytes": round(activations), "draft": heads}
    rows = table(section(report(with_manifest(bundle, engines=[engine])), "plan"), ENGINE_CAPTION)
    assert rows["weights"][1:] == [f"{(weights + HEAD_BYTES) / 1e6:.0f} MB", "1.00", "within"]
    assert rows["activations"][2] == "1.00"
    # One after the other: times add up, and the larger peak is the build's.
    assert rows["build: time"][1] == "64.5 s"
    assert rows["build: peak memory"][1] == "1.23 GB"

    # An engine that was built before the bundle had heads is planned without them, and one that is not told is no sum.
    alone = with_manifest(bundle, engines=[{**engine, "draft": None}])
    assert table(section(report(alone), "plan"), ENGINE_CAPTION)["weights"][2:] == ["1.00", "within"]
    untold = with_manifest(bundle, engines=[{**engine, "draft": {**heads, "weights_bytes": None}}])
    assert "weights" not in table(section(report(untold), "plan"), ENGINE_CAPTION)


def test_a_kit_s_build_is_that_of_both_graphs(tmp_path: Path) -> None:
    bundle = with_config(tmp_path, CONFIG, heads=True)
    capacity = str(bundle.manifest.cache.capacity_limit)
    found = CliRunner().invoke(
        command, [str(bundle.path), "--device", DEVICE, "--dtype", "fp16", "--json", "--context", capacity]
    )
    both = json.loads(found.stdout)["build"]["memory"]["value"]
    alone = planned(bundle, "--context", capacity)["build"]["memory"]["value"]
    assert both - alone > 3 * HEAD_BYTES
    heads = {"build_seconds": 1.0, "build_peak_memory_bytes": 1_000}
    for draft, expected in ((heads, both), (None, alone)):
        engine = {"build_seconds": 100.0, "build_peak_memory_bytes": int(expected), "draft": draft}
        rows = table(shown(bundle, tmp_path, build={"engine": engine}, benchmark=None), CAPTION)
        assert rows["build: peak memory"][2:] == ["1.00", "within"]


def test_an_engine_for_no_named_device_has_no_plan(tmp_path: Path) -> None:
    bundle = with_manifest(with_config(tmp_path, CONFIG), engines=[{**ENGINE, "device": ""}])
    assert section(report(bundle), "plan").get("class") == "missing"


@pytest.mark.parametrize(
    ("kit", "config", "words"),
    [
        ({"device": "jetson-orin-nano-9gb"}, CONFIG, "'jetson-orin-nano-9gb' is not"),
        ({"dtype": "fp8"}, CONFIG, "weights must be of a type"),
        ({}, {**CONFIG, "model_type": "unheard"}, "unheard"),
    ],
)
def test_without_a_plan_the_reason_is_said(
    kit: dict[str, Any], config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    part = shown(with_config(tmp_path, config), tmp_path, kit={**documents.kit_result()["kit"], **kit})
    assert "There is no plan to hold this against" in text(part)
    assert words in text(part)


def test_results_that_hold_nothing_foretold(tmp_path: Path) -> None:
    part = shown(with_config(tmp_path, CONFIG), tmp_path, build=None, benchmark=None)
    assert "nothing that the planner foretells" in text(part)
