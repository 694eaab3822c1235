"""What a build is foretold to take, beside builds that were measured (docs/engines.md, docs/planning.md)."""

from __future__ import annotations

import pytest

from edgekit.plan.build_cost import build_cost
from edgekit.plan.estimate import Estimate
from tests.plan.conftest import BOARD, CARD

#: Layers, bytes of weights, bytes of the engine, seconds and peak bytes of builds on an idle machine; None: not kept,
#: or not on an idle machine.
MEASURED = {
    "smollm2 fp16 86": (30, 269.3e6, 294.2e6, 11.6, 1531e6),
    "smollm2 fp16 89": (30, 269.3e6, 293.8e6, 11.3, 1530e6),
    "smollm2 fp16 120": (30, 269.3e6, 293.8e6, 10.9, 1483e6),
    "smollm2 int8 86": (30, 135.2e6, 178.3e6, 9.2, 1115e6),
    "smollm2 int8 89": (30, 135.2e6, 177.8e6, 10.6, 1114e6),
    "smollm2 int8 120": (30, 135.2e6, 177.9e6, 11.4, 1113e6),
    "smollm2 int4 86": (30, 94.9e6, 138.1e6, 9.9, 991e6),
    "smollm2 int4 89": (30, 94.9e6, 137.6e6, 9.5, 995e6),
    "smollm2 int4 120": (30, 94.9e6, 137.6e6, 10.4, 1016e6),
    "t6-small fp16 89": (5, 6.31e6, 18.7e6, 2.5, 302e6),
    "tiny llama fp16 89": (2, 0.19e6, 4.9e6, None, 262e6),
    "wide-random fp16 89": (2, 428.4e6, None, 2.4, 1554e6),
    # Its seconds went into no constant; its peak was in view when those of memory were rounded.
    "deep-random fp16 89": (12, 617.2e6, None, 5.9, 2294e6),
}


@pytest.mark.parametrize("name", MEASURED)
def test_measured_builds(name: str) -> None:
    layers, weights, engine, seconds, peak = MEASURED[name]
    cost = build_cost(CARD, "tensorrt-rtx", layers, Estimate.exact(weights, ""))
    assert cost.seconds is not None
    if seconds is not None:
        assert cost.seconds.value == pytest.approx(seconds, rel=0.15)
        assert cost.seconds.low < seconds < cost.seconds.high
    assert cost.memory.value == pytest.approx(peak, rel=0.12)
    assert cost.memory.low < peak < cost.memory.high
    if engine is not None:
        assert cost.engine.low < engine < cost.engine.high


def test_a_profile_less_takes_less_time_and_the_same_memory() -> None:
    two, one = (build_cost(CARD, "tensorrt-rtx", 30, Estimate.exact(1e8, ""), profiles) for profiles in (2, 1))
    assert two.seconds is not None
    assert one.seconds is not None
    assert two.seconds.value - one.seconds.value == pytest.approx(30 * 0.15)
    assert two.memory == one.memory


def test_nothing_is_made_up_for_tensorrt_which_was_not_measured() -> None:
    cost = build_cost(BOARD, "tensorrt", 30, Estimate.exact(1e8, ""))
    assert (cost.seconds, cost.on_device, cost.available) == (None, True, BOARD.usable_memory_bytes)
    assert "TensorRT itself was not measured" in cost.memory.basis
    assert cost.memory.high == pytest.approx(2 * cost.memory.value)
    assert cost.facts()["seconds"] is None


def test_a_range_of_weights_widens_the_range_of_the_build() -> None:
    exact, range_ = Estimate.exact(1e9, ""), Estimate(1e9, 0.5e9, 2e9, "")
    narrow, wide = (build_cost(CARD, "tensorrt-rtx", 10, weights) for weights in (exact, range_))
    assert narrow.memory.value == wide.memory.value
    assert wide.memory.low < narrow.memory.low < narrow.memory.high < wide.memory.high
    assert narrow.seconds is not None
    assert wide.seconds is not None
    assert wide.seconds.low < narrow.seconds.low < narrow.seconds.high < wide.seconds.high
