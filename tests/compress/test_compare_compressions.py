"""scripts/compare-compressions: its references, its table, and a run that was cut off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.compress.layerwise import compress as compression
from edgekit.compress.layerwise.calibrate import calibrate
from edgekit.compress.layerwise.options import sizes_of
from edgekit.errors import ExportError
from scripts.compressions.drawing import by_size, merged, ordered, shown_of, table
from scripts.compressions.ggml import GgmlLibrary, ggml_type
from scripts.compressions.plain import plain_base, plain_rounded
from scripts.compressions.replaced import Replaced
from tests.tiny_encoder import write_encoder

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare-compressions"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(write_encoder(tmp_path_factory.mktemp("plain") / "encoder", max_position_embeddings=300))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[Any]]:
    """Runs the script with arguments; the points that it printed. SystemExit where it refuses."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    # What the script puts in its place is not to stay there.
    monkeypatch.setattr(compression, "calibrate", calibrate)
    loader = SourceFileLoader("compare_compressions", str(SCRIPT))
    spec = spec_from_loader("compare_compressions", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)

    def called(*arguments: str) -> list[Any]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        module.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return called


def test_plain_rounding_spans_the_range_of_each_block() -> None:
    row = np.linspace(-1, 2, 32, dtype=np.float32)
    found = plain_rounded(np.stack([row, np.zeros(32, np.float32), row + 2]), 2, 32)
    # A step is a third of the range, which reaches to 0 where all weights are above it.
    assert found.scales[:, 0] == pytest.approx([1, 1, 4 / 3], rel=1e-3)
    assert found.zero_points[:, 0].tolist() == [1, 0, 0]
    assert np.abs(found.dequantized() - np.stack([row, 0 * row, row + 2])).max(1) == pytest.approx(
        [0.5, 0, 2 / 3], rel=0.1
    )


def test_plain_bases_have_the_most_bits_and_then_the_smallest_block() -> None:
    # A block of B inputs takes b + (16 + b) / B bits per weight.
    assert plain_base((64, 384), 4.625)[1:] == (4, 32)
    assert plain_base((64, 384), 4.624)[1:] == (4, 64)
    assert plain_base((64, 384), 4.0)[1:] == (3, 32)
    nbytes, bits, block = plain_base((64, 384), 3.5)
    assert (bits, block) == (3, 64)
    assert nbytes == plain_rounded(np.ones((64, 384), np.float32), bits, block).nbytes() - 2 * 64 * 384 // block
    with pytest.raises(ExportError, match="were asked for"):
        plain_base((64, 384), 2.0)


@pytest.mark.parametrize(
    ("method", "inputs", "kind", "bits"),
    [
        # Bytes of a block: ggml/src/ggml-common.h, block_q3_K and so on.
        ("ggml:q3_k", 512, "Q3_K", 110 * 8 / 256),
        ("ggml:q3_k+imatrix", 384, "IQ4_NL", 18 * 8 / 32),
        ("ggml:q4_k", 384, "Q5_0", 22 * 8 / 32),
        ("ggml:q6_k", 576, "Q8_0", 34 * 8 / 32),
        ("ggml:q4_0", 576, "Q4_0", 18 * 8 / 32),
        ("ggml:q4_k", 100, "F16", 16),
        ("ggml:q3_k/flat", 384, "Q3_K", 110 * 8 / 256),
    ],
)
def test_types_fall_back_as_in_llama_cpp(method: str, inputs: int, kind: str, bits: float) -> None:
    asked = ggml_type(method)
    assert asked.of(inputs).name == kind
    assert asked.importance == method.endswith("+imatrix")
    assert asked.nbytes((64, inputs)) * 8 / (64 * inputs) == bits


def test_unknown_types_and_libraries_are_refused(
    encoder: Checkpoint, tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    with pytest.raises(ExportError, match="q4_k"):
        ggml_type("ggml:q4k")
    with pytest.raises(ExportError, match="libggml-base"):
        GgmlLibrary(tmp_path / "none.so")
    for method, expected in {"ggml:q4_k": "give it as --ggml PATH", "rounded": "compression method is one of"}.items():
        with pytest.raises(SystemExit, match=expected):
            run(str(encoder.path), "-o", str(tmp_path / "out"), "--methods", method)


@pytest.mark.skipif("GGML_LIBRARY" not in os.environ, reason="GGML_LIBRARY does not name llama.cpp's libggml-base")
def test_llama_cpps_own_quantisers_round_matrices() -> None:
    library, generator = GgmlLibrary(Path(os.environ["GGML_LIBRARY"])), np.random.default_rng(0)
    weight, importance = generator.standard_normal((8, 512), np.float32), generator.random(512, np.float32)
    # Q8_0 is 127 steps to the largest of 32 magnitudes, in float16.
    step = np.abs(weight.reshape(8, -1, 32)).max(-1, keepdims=True) / 127
    found = library.rounded(ggml_type("ggml:q8_0"), weight)
    assert (np.abs(found - weight).reshape(8, -1, 32) <= step * 0.5 + 127 * step / 2048).all()
    for name in ("q2_k", "q3_k", "q4_k"):
        rows = library.rounded(ggml_type(f"ggml:{name}"), weight)
        # Where rows are whole blocks, none runs over an end.
        assert (rows == library.rounded(ggml_type(f"ggml:{name}/flat"), weight)).all()
        weighed = library.rounded(ggml_type(f"ggml:{name}+imatrix"), weight, importance)
        assert (importance * (weighed - weight) ** 2).sum() < (importance * (rows - weight) ** 2).sum()
    assert library.rounded(ggml_type("ggml:q3_k/flat+imatrix"), weight[:5, :100], importance[:100]).shape == (5, 100)
    with pytest.raises(ExportError, match="needs an importance matrix"):
        library.check(ggml_type("ggml:iq2_xs"))


def test_replaced_matrices_are_read_and_all_else_is_the_original(encoder: Checkpoint) -> None:
    matrices = sizes_of(encoder).matrices
    changed = Replaced(encoder, matrices, lambda name, weight: weight * 0 + len(name))
    for name in encoder.names():
        expected = len(name) if name in matrices else encoder.array(name)
        assert (changed.array(name) == expected).all()
        assert changed.array(name).shape == changed.spec(name).shape == encoder.spec(name).shape


def test_the_table_is_ordered_by_bits_and_method() -> None:
    rows: list[dict[str, Any]] = [
        {"method": "round", "asked": 3.0, "bits": 2.6, "p": 2.0},
        {"method": "ggml:q4_0", "asked": None, "bits": 4.5, "p": 1.5},
        {"method": "round", "asked": 5.0, "bits": 4.6, "p": 1.25, "healed": {"p": 1.125}},
        {"method": "plain", "asked": 3.0, "bits": 3.0, "failure": "ExportError: too | small"},
        {"method": "original", "bits": 32, "p": 1.0},
    ]
    methods = ["plain", "round", "ggml:q4_0"]
    names = [(entry["method"], entry.get("asked")) for entry in ordered(rows, methods)]
    assert names == [("original", None), ("round", 5), ("ggml:q4_0", None), ("plain", 3), ("round", 3)]
    assert table(rows, ["p"], methods).splitlines() == [
        "| method | bits asked | bits | p | p healed |",
        "|---|---|---|---|---|",
        "| `original` |  | 32.00 | 1 |  |",
        "| `round` | 5 | 4.60 | 1.25 | 1.125 |",
        "| `ggml:q4_0` |  | 4.50 | 1.5 |  |",
        "| `plain` | 3 |  | ExportError: too / small |  |",
        "| `round` | 3 | 2.60 | 2 |  |",
    ]


def test_several_runs_are_one_table_by_size(tmp_path: Path) -> None:
    first: list[dict[str, Any]] = [
        {"method": "original", "bits": 5.0, "settings": {"uniform": False}, "perplexity_512": 30.0},
        {"method": "round", "asked": 4.0, "bits": 3.9, "perplexity_512": 45.0},
        {"method": "svd", "asked": 4.0, "bits": 4.0, "failure": "ExportError"},
        {"method": "ggml:q4_0", "asked": None, "bits": 4.5, "perplexity_512": 31.0},
        {"method": "dense", "asked": 4.0, "bits": 4.0, "perplexity_512": 36.0, "healed": {"failure": "Stopped"}},
    ]
    second: list[dict[str, Any]] = [
        {"method": "original", "bits": 5.0, "settings": {"uniform": True}, "perplexity_512": 30.0},
        {"method": "svd", "asked": 4.0, "bits": 4.0, "perplexity_512": 9000.0},
        {"method": "dense", "asked": 3.0, "bits": 3.0, "perplexity_512": 60.0},
    ]
    third: list[dict[str, Any]] = [
        first[0],
        {"method": "dense", "asked": 4.0, "bits": 4.0, "perplexity_512": 39.0, "healed": {"perplexity_512": 33.0}},
    ]
    expected = [
        "| method | 4 bits | 3 bits |",
        "|---|---:|---:|",
        "| `round` | 1.5 |  |",
        "| `svd`, uniform | 300 |  |",
        "| `dense` | 1.2 |  |",
        "| `dense`, healed | 1.1 |  |",
        "| `dense`, uniform |  | 2 |",
    ]
    results = merged([first, second, third])
    assert by_size(results, "perplexity_512", ["round", "svd", "dense"]).splitlines() == expected
    for name, entries in {"one": first, "two": second, "three": third}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(entries))
    drawing = SCRIPT.with_name("draw-compressions")
    folders = [str(tmp_path / name) for name in ("one", "two", "three")]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    subprocess.run([sys.executable, drawing, *folders, "-o", tmp_path / "all"], env=environment, check=True)
    assert (tmp_path / "all.md").read_text().splitlines()[2:9] == expected
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_embeddings_are_shown_as_they_are() -> None:
    results = [
        {"method": "original", "bits": 32.0, "cosine_mean": 1.0},
        {"method": "tt", "asked": 3.0, "bits": 2.9, "cosine_mean": -0.0128},
    ]
    assert by_size(merged([results]), "cosine_mean", []).splitlines()[2:] == ["| `tt` | -0.013 |"]
    assert shown_of(results[0])[0][0] == "cosine_mean"


def test_a_run_goes_on_where_it_was_cut_off_and_heals_what_can_be(
    encoder: Checkpoint, tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    fast = ["--sequences", "2", "--uniform", "--bits", "5"]
    command = [str(encoder.path), "-o", str(tmp_path), *fast, "--methods"]
    assert len(run(*command, "plain,round,svd")) == 3
    first = json.loads((tmp_path / "results.json").read_text())
    assert [entry["method"] for entry in first] == ["original", "plain", "round", "svd"]
    assert first[0]["cosine_mean"] == pytest.approx(1)
    assert first[0]["bits"] == 32
    assert 0.9 < first[1]["cosine_mean"] < first[2]["cosine_mean"] < 1
    # The point that was not written is done again. Single weights and factors can be trained; codes alone cannot, which
    # is tried once.
    (tmp_path / "results.json").write_text(json.dumps(first[:-1]))
    heal = ["--heal", "2", "--heal-batch", "1", "--heal-length", "32"]
    assert [entry["method"] for entry in run(*command, "plain,round,svd", *heal)] == ["round", "round", "svd", "svd"]
    again = json.loads((tmp_path / "results.json").read_text())
    assert [entry["cosine_mean"] for entry in again] == [entry["cosine_mean"] for entry in first]
    healed = {e["method"]: e.get("healed") for e in again}
    assert healed["plain"] is None
    assert "codes alone" in healed["round"]["failure"]
    assert healed["svd"]["settings"]["steps"] == 2
    assert 0 < healed["svd"]["cosine_mean"] <= 1
    assert not run(*command, "plain,round,svd", *heal)
    assert {path.name for path in tmp_path.iterdir()} == {"calibration", "plot.png", "results.json", "table.md"}
    with pytest.raises(SystemExit, match="another rounds"):
        run(*command, "plain,round,svd", "--rounds", "3")
