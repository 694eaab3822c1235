"""The whole compression of tiny models: sizes, errors, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.checkpoint import open_checkpoint
from edgekit.checkpoint.compressed import CompressedCheckpoint
from edgekit.checkpoint.safetensors_header import read_safetensors_header
from edgekit.compress.layerwise.compress import checked, compress
from edgekit.compress.layerwise.workplace import work_folder
from edgekit.compress.saten.cost import int4_seconds, planned_seconds, seconds
from edgekit.compress.saten.request import method_names
from edgekit.errors import CheckpointError, DoesNotFit, ExportError, ModelError
from edgekit.progress import SilentProgress
from tests.compress.layerwise.small import compressed, here, options

ROOT = Path(__file__).parents[3]


def opened(path: Path) -> CompressedCheckpoint:
    checkpoint = open_checkpoint(path)
    assert isinstance(checkpoint, CompressedCheckpoint)
    return checkpoint


def relative(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("method", method_names())
def test_every_method_compresses_a_decoder(method: str, llama: Path, tmp_path: Path) -> None:
    bits = 8.0 if method.startswith(("svd", "tt", "saten-f")) else 5.0
    record = compressed(llama, tmp_path / "out", method=method, bits_per_weight=bits)
    source, found = open_checkpoint(llama), opened(tmp_path / "out")
    assert sorted(found.names()) == sorted(source.names())
    assert record["bits_per_weight"] <= bits
    for name in source.names():
        expected, array = np.asarray(source.array(name), np.float32), np.asarray(found.array(name), np.float32)
        if name in found.records:
            assert relative(array, expected) == pytest.approx(found.records[name]["plain_error"], rel=1e-3)
            assert 0 < relative(array, expected) < 0.95
        else:
            np.testing.assert_array_equal(array, expected)


def test_the_record_says_what_is_on_the_disk(llama: Path, tmp_path: Path) -> None:
    record = compressed(llama, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    data = sum(tensor.nbytes for tensor in read_safetensors_header(file).values())
    assert record["weights_bytes"] == data
    assert record["matrix_bytes"] + record["other_bytes"] == data
    assert record["file_bytes"] == file.stat().st_size
    checkpoint = opened(tmp_path / "out")
    assert sum(checkpoint.spec(name).nbytes for name in checkpoint.names()) == data
    for name, entry in checkpoint.records.items():
        assert checkpoint.spec(name).nbytes == entry["bytes"]
    # A file of a tiny model has more header than data; that of SmolLM2-135M is within 1 %, see docs/compression.md.
    assert file.stat().st_size - data < 40_000


@pytest.mark.parametrize("size", [{"target_bytes": 110_000}, {"ratio": 0.68}])
def test_a_size_of_all_weights_is_kept(size: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    source = open_checkpoint(llama)
    weights = sum(int(np.prod(source.spec(name).shape)) for name in source.names())
    limit = size.get("target_bytes") or int(size["ratio"] * 2 * weights)
    record = compressed(llama, tmp_path / "out", **size)
    assert 0.95 * limit < record["weights_bytes"] <= limit


def test_a_size_below_what_is_not_compressed_is_refused(llama: Path, tmp_path: Path) -> None:
    source = open_checkpoint(llama)
    kept = sum(4 * int(np.prod(source.spec(name).shape)) for name in source.names() if "proj" not in name)
    with pytest.raises(ExportError, match=f"{kept:,} bytes"):
        compressed(llama, tmp_path / "out", target_bytes=kept)


def test_an_encoder_is_compressed(bert: Path, tmp_path: Path) -> None:
    record = compressed(bert, tmp_path / "out")
    checkpoint = opened(tmp_path / "out")
    assert record["matrices"] == 12
    assert (tmp_path / "out" / "modules.json").read_bytes() == (bert / "modules.json").read_bytes()
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
    assert "encoder.layer.1.output.dense.weight" in checkpoint.records


def test_a_gguf_keeps_the_integers_of_its_embedding(tiny_gguf: Any, tmp_path: Path) -> None:
    source = tiny_gguf("Q8_0")
    compressed(source.path, tmp_path / "out")
    found = opened(tmp_path / "out")
    name = "model.embed_tokens.weight"
    assert found.records[name]["method"] == "stored"
    np.testing.assert_array_equal(found.array(name), source.array(name))


def test_bytes_go_where_they_matter(llama: Path, tmp_path: Path) -> None:
    uniform = compressed(llama, tmp_path / "uniform", method="dense", bits_per_weight=4.0)
    shared = compressed(llama, tmp_path / "shared", method="dense", bits_per_weight=4.0, allocate=True)
    assert shared["bits_per_weight"] <= 4.0
    assert shared["expected_loss"] < uniform["expected_loss"]


@pytest.mark.parametrize("method", ["dense", "saten-augmented"])
def test_a_time_is_kept(llama: Path, tmp_path: Path, method: str) -> None:
    """What is made takes no longer than was asked for, by the cost model of what is stored; more time, less loss."""
    sizes = checked(open_checkpoint(llama), options())
    least = sum(planned_seconds(shape, 2, 32, 0) for shape in sizes.matrices.values())
    losses = []
    for factor in (1.02, 1.2):
        out = tmp_path / f"{factor}"
        extra = {"target_ms": 1e3 * factor * least, "allocate": True, "method": method}
        losses.append(compressed(llama, out, **extra)["expected_loss"])
        made = opened(out)
        assert sum(seconds(made.matrix(name)) for name in sizes.matrices) <= 1.001 * factor * least
        assert all(piece["kind"] != "sparse" for name in sizes.matrices for piece in made.records[name]["pieces"])
    assert losses[1] < 0.8 * losses[0]


def test_times_that_cannot_be_kept(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"at least 0.0\d ms on one thread.*\n?.*0.001 ms were asked for"):
        compressed(llama, tmp_path / "out", target_ms=0.001, allocate=True, method="dense")
    for extra in ({"method": "svd"}, {"sparsity": "2:4"}, {"allocate": False}):
        with pytest.raises(ExportError, match="--target-ms shares time"):
            options(**{"target_ms": 1.0, "allocate": True, "method": "saten-augmented"} | extra)
    assert not (tmp_path / "out").exists()


def test_patterns_are_kept(llama: Path, tmp_path: Path) -> None:
    compressed(llama, tmp_path / "out", keep=("*.down_proj.weight", "model.layers.0.*"))
    assert {name.split(".")[2] for name in opened(tmp_path / "out").records} == {"1"}
    assert not any("down" in name for name in opened(tmp_path / "out").records)
    with pytest.raises(ModelError, match="none is left"):
        compressed(llama, tmp_path / "none", keep=("*",))


def test_a_plan_is_written_edited_and_applied(llama: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    compressed(llama, plan, allocate=True, plan_only=True)
    found = json.loads(plan.read_text())
    assert len(found["matrices"]) == 14
    for line in found["matrices"]:
        rows, columns = checked(open_checkpoint(llama), options()).matrices[line["matrix"]]
        assert line["int4_us"] == pytest.approx(1e6 * int4_seconds(rows, columns), abs=0.01)
        assert line["expected_us"] > 0.9 * 1e6 * planned_seconds((rows, columns), 2, 64, 0)
    first, second, *rest = found["matrices"]
    first |= {"method": "round", "bytes": 4000, "base_bits": [4]}
    second |= {"sparsity": "2:4", "method": "saten", "bytes": 6000}
    plan.write_text(json.dumps(found | {"matrices": [first, second, *rest[:2]]}))
    compressed(llama, tmp_path / "out", plan=plan)
    records = opened(tmp_path / "out").records
    assert set(records) == {entry["matrix"] for entry in (first, second, *rest[:2])}
    assert records[first["matrix"]]["method"] == "round"
    assert [piece["kind"] for piece in records[second["matrix"]]["pieces"]] == ["pair", "sparse"]
    assert records[second["matrix"]]["pieces"][1]["group"] == [2, 4]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"version": 9}, "version is 9"),
        ({"matrices": []}, "there is none"),
        ({"settings": {"ranks": 3}}, "'ranks'"),
        ({"settings": {"rounds": "many"}}, "many"),
        ({"settings": {"base_bits": [5]}}, "5"),
        ({"matrices": [{"matrix": "model.norm.weight", "method": "dense", "bytes": 9}]}, "model.norm.weight"),
        ({"matrices": [{"matrix": "model.layers.0.mlp.up_proj.weight", "method": "magic", "bytes": 9}]}, "magic"),
        ({"matrices": [{"matrix": "model.layers.0.mlp.up_proj.weight", "method": "dense", "bytes": -1}]}, "-1"),
        ({"matrices": [{"matrix": "model.layers.0.mlp.up_proj.weight", "method": "dense"}]}, "bytes"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any], fact: str, llama: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    compressed(llama, plan, plan_only=True)
    plan.write_text(json.dumps(json.loads(plan.read_text()) | change))
    with pytest.raises(ExportError) as refused:
        compressed(llama, tmp_path / "out", plan=plan)
    assert fact in str(refused.value)
    assert not work_folder(tmp_path / "out").exists()
    assert not (tmp_path / "out").exists()


def test_a_stopped_run_goes_on_to_the_same_bytes(llama: Path, tmp_path: Path) -> None:
    compressed(llama, tmp_path / "whole", allocate=True)
    stops, found = 0, None
    while found is None:
        asked = iter([False] * 2)
        found = compress(
            open_checkpoint(llama),
            tmp_path / "parts",
            options(allocate=True),
            progress=SilentProgress(),
            stopped=lambda asked=asked: next(asked, True),  # type: ignore[misc]
            execute=here,
            resume=work_folder(tmp_path / "parts").exists(),
        )
        stops += found is None
        assert (found is None) != (tmp_path / "parts").exists()
    assert stops >= 3
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not work_folder(tmp_path / "parts").exists()


def test_resuming_needs_the_same_job(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="holds none"):
        compressed(llama, out, resume=True)
    arguments: dict[str, Any] = {"progress": SilentProgress(), "stopped": lambda: True, "execute": here}
    compress(open_checkpoint(llama), out, options(), **arguments)
    with pytest.raises(CheckpointError, match="options"):
        compressed(llama, out, resume=True, bits_per_weight=4.5)
    with pytest.raises(CheckpointError, match="cut off"):
        compressed(llama, out)
    compressed(llama, out, overwrite=True)


def test_a_killed_run_goes_on_to_the_same_bytes(llama: Path, tmp_path: Path) -> None:
    """By kill -9, with two processes; a run that was never cut off used one."""
    small = ["--bits-per-weight", "5", "--calibration-sequences", "4", "--calibration-length", "32", "--rounds", "1"]
    verb = [sys.executable, "-m", "edgekit.cli.main", "compress", str(llama), "--uniform", *small]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(
        [*verb, "-o", str(tmp_path / "killed"), "--workers", "2"], env=environment, stderr=subprocess.DEVNULL
    )
    folder = work_folder(tmp_path / "killed")
    until = time.monotonic() + 120
    while not list(folder.glob("calibration/statistics.0*")) and time.monotonic() < until:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()
    for out, more in (("killed", ["--workers", "2", "--resume"]), ("whole", ["--workers", "1"])):
        subprocess.run([*verb, "-o", str(tmp_path / out), *more], env=environment, check=True, capture_output=True)
    names = ("model.safetensors", "config.json")
    assert all((tmp_path / "killed" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_time_is_kept_or_refused(llama: Path) -> None:
    from edgekit.compress.layerwise.compress import checked
    from edgekit.compress.layerwise.estimate import estimate
    from edgekit.compress.layerwise.speed import FitTime

    def timed(fit: Any) -> FitTime:
        return FitTime(1.0, 0.5)

    checkpoint = open_checkpoint(llama)
    sizes = checked(checkpoint, options())
    one, many = (estimate(checkpoint, options(rounds=rounds), sizes, None, timed).seconds for rounds in (1, 16))
    assert many - one == pytest.approx(14 * 15 * 0.5, rel=0.1)
    allowed = (one + many) / 2
    expected = estimate(checkpoint, options(rounds=16, minutes=allowed / 60), sizes, None, timed)
    assert 1 < expected.rounds < 16
    assert one < expected.seconds <= allowed
    with pytest.raises(DoesNotFit, match="minutes? at least"):
        estimate(checkpoint, options(minutes=0.5 * one / 60), sizes, None, timed)


def test_a_plan_is_estimated_by_what_it_says(llama: Path, tmp_path: Path) -> None:
    """Its rounds, its calibration and the matrices that it names; one fit takes a second and each further round two."""
    from edgekit.compress.layerwise.compress import asked_plan, checked
    from edgekit.compress.layerwise.estimate import estimate
    from edgekit.compress.layerwise.speed import FitTime

    checkpoint = open_checkpoint(llama)
    compressed(llama, tmp_path / "plan.json", plan_only=True, rounds=3)
    sizes = checked(checkpoint, options())
    document = json.loads((tmp_path / "plan.json").read_text())
    document["matrices"] = document["matrices"][:5]
    (tmp_path / "less.json").write_text(json.dumps(document))
    seconds = {}
    for name in ("plan", "less"):
        plan = asked_plan(options(), sizes, tmp_path / f"{name}.json")
        expected = estimate(checkpoint, options(sequences=999), sizes, plan, lambda fit: FitTime(1.0, 2.0))
        assert expected.rounds == 3
        seconds[name] = expected.seconds
    assert seconds["plan"] - seconds["less"] == pytest.approx(9 * 5.0, abs=0.5)
    own = estimate(checkpoint, options(rounds=3), sizes, None, lambda fit: FitTime(1.0, 2.0))
    assert seconds["plan"] == pytest.approx(own.seconds, abs=0.5)


def test_what_is_compressed_is_not_compressed_again(llama: Path, tmp_path: Path) -> None:
    compressed(llama, tmp_path / "out")
    with pytest.raises(CheckpointError, match="compressed once"):
        compressed(tmp_path / "out", tmp_path / "again")
    with pytest.raises(CheckpointError, match="exists"):
        compressed(llama, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no compression\.json"):
        compressed(llama, tmp_path / "mine", overwrite=True)


def test_a_budget_too_small_is_refused_and_leaves_nothing_in_its_place(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="bits per weight"):
        compressed(llama, tmp_path / "out", method="dense", bits_per_weight=1.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["version", "extra", "missing", "shape"])
def test_a_damaged_checkpoint_is_refused(damage: str, llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compressed(llama, out)
    config = json.loads((out / "config.json").read_text())
    matrices = config["compression"]["matrices"]
    name = next(iter(matrices))
    if damage == "version":
        config["compression"]["version"] = 7
    elif damage == "extra":
        del matrices[name]
    elif damage == "missing":
        matrices["model.layers.0.mlp.other.weight"] = matrices[name]
    else:
        matrices[name]["pieces"][0]["shape"] = [3, 3, 3]
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="must agree"):
        open_checkpoint(out).array(name)
    shutil.rmtree(out)


@pytest.mark.parametrize("method", ["saten", "saten-faithful", "tt"])
def test_the_layout_of_the_training_code_opens_as_the_same_model(method: str, llama: Path, tmp_path: Path) -> None:
    compressed(llama, tmp_path / "ours", method=method, bits_per_weight=10.0)
    compressed(llama, tmp_path / "theirs", method=method, bits_per_weight=10.0, layout="tm_params")
    ours, theirs = open_checkpoint(tmp_path / "ours"), open_checkpoint(tmp_path / "theirs")
    assert theirs.format == "tm_params"
    assert sorted(theirs.names()) == sorted(ours.names())
    for name in ours.names():
        assert theirs.spec(name).shape == ours.spec(name).shape
        np.testing.assert_allclose(theirs.array(name), ours.array(name), rtol=1e-5, atol=1e-6)
    with pytest.raises(ExportError, match="tensor trains"):
        options(layout="tm_params")
