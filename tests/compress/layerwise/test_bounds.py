"""Sizes that cannot be made are refused by shapes alone; the bounds are those that fits themselves tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.checkpoint import open_checkpoint
from edgekit.compress.layerwise.bounds import check_budget, check_plan, least_of, most_of
from edgekit.compress.layerwise.compress import checked
from edgekit.compress.layerwise.options import CompressOptions, Sizes
from edgekit.compress.layerwise.plan import Entry, Plan, settings_from
from edgekit.compress.saten.decompose import compress_matrix
from edgekit.compress.saten.request import method_names
from edgekit.errors import ExportError
from tests.compress.layerwise.small import compressed
from tests.parity.tiny_models import write_checkpoint

SHAPE = (128, 192)
CODES = ("dense", "gptq", "round")


def sizes(count: int = 3, kept: int = 1000) -> Sizes:
    matrices = {f"model.layers.{k}.w.weight": SHAPE for k in range(count)}
    return Sizes(matrices, kept, count * SHAPE[0] * SHAPE[1] + kept // 2)


def settings(method: str, **choices: Any) -> Any:
    return settings_from({**CompressOptions(method=method, bits_per_weight=4, **choices).settings, "rounds": 1})


@pytest.mark.parametrize("method", method_names())
def test_the_least_is_what_a_fit_says(method: str) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32))
    chosen = settings(method)
    least = least_of(method, SHAPE, chosen)
    with pytest.raises(ExportError) as refused:
        compress_matrix(weight, method, budget=least - 1, settings=chosen)
    assert re.search(rf"at least {least} bytes", refused.value.rule), refused.value.rule
    assert compress_matrix(weight, method, budget=least, settings=chosen).nbytes <= least


@pytest.mark.parametrize("method", CODES)
def test_the_most_is_what_the_largest_codes_take(method: str) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32))
    most = most_of(method, SHAPE, settings(method, base_bits=(4,)))
    smallest_block = settings_from({"base_bits": [4], "base_blocks": [32], "rounds": 1})
    assert compress_matrix(weight, method, budget=10**6, settings=smallest_block).nbytes == most
    assert most_of("saten-augmented", SHAPE, settings("saten-augmented")) == 2 * SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize("method", ["saten-augmented", "round", "svd"])
@pytest.mark.parametrize(
    ("given", "option"),
    [("bits_per_weight", "--bits-per-weight"), ("ratio", "--ratio"), ("target_bytes", "--target-bytes")],
)
@pytest.mark.parametrize("uniform", [False, True])
def test_what_a_refusal_offers_is_accepted_and_a_hair_beyond_is_not(
    method: str, given: str, option: str, uniform: bool
) -> None:
    def asked(value: float) -> CompressOptions:
        size: Any = {given: int(value) if given == "target_bytes" else value}
        return CompressOptions(method=method, allocate=not uniform, **size)

    beyond = {"bits_per_weight": 40.0, "ratio": 3.0, "target_bytes": 10**7}[given]
    with pytest.raises(ExportError) as refused:
        check_budget(asked(beyond), sizes())
    low, high = map(float, re.findall(rf"{option} ([\d.]+) to ([\d.]+)", refused.value.next_step)[0])
    check_budget(asked(low), sizes())
    check_budget(asked(high), sizes())
    for value in (0.98 * low, 1.02 * high):
        with pytest.raises(ExportError, match="were asked for"):
            check_budget(asked(value), sizes())


def test_a_plan_that_starves_a_matrix_is_refused() -> None:
    def plan(nbytes: int) -> Plan:
        entry = Entry("model.layers.1.w.weight", "dense", nbytes, {"base_bits": [3]})
        return Plan({}, (entry,), {"sequences": 2, "length": 8}, {})

    least = least_of("dense", SHAPE, settings_from({"base_bits": [3]}))
    check_plan(plan(least), sizes())
    with pytest.raises(ExportError, match=f"takes {least:,} bytes at least"):
        check_plan(plan(least - 1), sizes())


def test_nothing_is_left_of_what_is_refused(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "llama", "llama", num_hidden_layers=2)
    for bits in (0.5, 40.0):
        with pytest.raises(ExportError, match=f"{bits:g} bits per weight"):
            compressed(source, tmp_path / "out", bits_per_weight=bits)
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]
    assert checked(open_checkpoint(source), CompressOptions(bits_per_weight=4)).matrices
