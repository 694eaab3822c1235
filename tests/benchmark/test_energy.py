"""Tokens per joule: of a meter whose power is known, on a session whose time is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.benchmark import measure as module
from edgekit.benchmark.energy import LEAST_READINGS, energy_lines, measured, tokens_per_joule
from edgekit.benchmark.measure import Timing
from edgekit.device import host
from edgekit.device.reading import Reading, energy_over
from edgekit.device.telemetry import NoSource, Recorder, open_source
from edgekit.progress import SilentProgress
from tests.runtime.fake_sessions import HashSession

POWERS = [Reading(0.0, power_w=10.0), Reading(1.0, power_w=20.0), Reading(3.0, power_w=20.0)]


def test_the_energy_between_two_moments() -> None:
    assert energy_over(POWERS, 0.0, 3.0) == pytest.approx(15 + 40)
    # Between readings the power changes evenly: from 12.5 to 17.5 W in half a second.
    assert energy_over(POWERS, 0.25, 0.75) == pytest.approx(7.5)
    assert energy_over(POWERS, 0.5, 2.0) == pytest.approx(0.5 * 17.5 + 20)
    assert energy_over(POWERS, 1.0, 1.0) == 0


def test_energy_that_the_readings_do_not_reach() -> None:
    assert energy_over(POWERS, -0.1, 1.0) is None
    assert energy_over(POWERS, 2.0, 3.1) is None
    assert energy_over(POWERS[:1], 0.0, 0.0) is None
    assert energy_over([Reading(0.0), Reading(1.0)], 0.0, 1.0) is None


def test_tokens_over_the_energy_of_their_spans() -> None:
    readings = [Reading(float(second), power_w=5.0) for second in range(11)]
    assert tokens_per_joule(20, [(1.5, 4.5), (6.5, 7.5)], readings) == pytest.approx(2 * 20 / (5 * 4))
    reached, beyond = (1.5, 4.5), (9.5, 10.5)
    assert tokens_per_joule(30, [reached, beyond], readings) == pytest.approx(30 / (5 * 3)), "without the last"
    assert tokens_per_joule(20, [(1.2, 1.8), (3.2, 3.8)], readings) is None, "no reading is within"
    short = [(0.5, LEAST_READINGS - 0.5)]
    assert tokens_per_joule(40, short, readings) is None, "too few are"
    assert tokens_per_joule(40, [(7.5, 11.0)], readings) is None, "they end before it"
    assert tokens_per_joule(40, [(1.5, 9.5)], [Reading(each.seconds) for each in readings]) is None
    assert tokens_per_joule(40, [(1.5, 9.5)], [Reading(each.seconds, power_w=0.0) for each in readings]) is None


class Clock:
    """Time that passes only when a session works; a reading is due every millisecond of it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Working(HashSession):
    """A token takes 10 ms in a step of its own and 1 ms in a prompt; the meter is read as time passes."""

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        super().__init__(capacity=1000)
        self.clock, self.recorder = clock, recorder

    def forward(self, tokens: np.ndarray, keep: int = 1) -> np.ndarray:
        new = tokens.shape[1]
        for _ in range(new if new > 1 else 10):
            self.clock.now += 0.001
            watts = 4.0 if new > 1 else 8.0
            self.recorder._readings.append(Reading(self.clock.now, power_w=watts, temperature_c=51.0, gpu_clock_hz=9e8))
        return super().forward(tokens, keep)


class Silent:
    """A meter that is asked and has nothing new: the session gives the readings."""

    name = "a fake meter"

    def read(self) -> Reading | None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module.time, "perf_counter", fake)
    monkeypatch.setattr(module.time, "monotonic", fake)
    monkeypatch.setattr(host, "output", lambda command: None)
    return fake


def test_a_benchmark_with_a_meter(clock: Clock) -> None:
    recorder = Recorder(60.0, lambda interval_s: Silent())
    session = Working(clock, recorder)
    clock.now += 0.001
    recorder._readings.append(Reading(clock.now, power_w=4.0))
    timing = Timing((40,), (20,), decode_tokens=5, repetitions=3)
    found = measured(session, 50, timing, SilentProgress(), recorder)
    # 8 W and 10 ms a token are 0.08 J; 4 W and 1 ms 0.004 J. At the ends the power is between both.
    assert found["decodes"][0]["tokens_per_joule"] == pytest.approx(1 / 0.08, rel=0.02)
    assert found["prompts"][0]["tokens_per_joule"] == pytest.approx(1 / 0.004, rel=0.05)
    told = found["telemetry"]
    assert (told["source"], told["missing"], told["peak_power_w"]) == ("a fake meter", "", 8.0)
    power, prompt, decode = energy_lines(found)
    assert power.startswith("power: ")
    assert "8.0 W at most; 51 °C at most; GPU at 900 MHz on average, 900 at least (a fake meter; " in power
    assert decode == f"energy, decode at depth 20: {found['decodes'][0]['tokens_per_joule']:.3g} tokens/J"
    assert prompt.startswith("energy, prompt of 40: ")


def found_with(**telemetry: Any) -> dict[str, Any]:
    none = dict.fromkeys(
        ("mean_power_w", "peak_power_w", "peak_temperature_c", "mean_gpu_clock_hz", "mean_memory_clock_hz")
    )
    told = {**none, "source": "a meter", "missing": "", "power_mode": "", "readings": 7, **telemetry}
    row = {"tokens": 5, "depth": 20, "tokens_per_joule": None}
    return {"telemetry": told, "prompts": [], "decodes": [row]}


def test_what_was_not_read_is_said() -> None:
    assert energy_lines(found_with(missing="no meter here", source="")) == ["power: not measured: no meter here"]
    assert energy_lines(found_with(peak_temperature_c=40.0)) == ["power: not told; 40 °C at most (a meter; 7 readings)"]
    short = energy_lines(found_with(mean_power_w=3.0, peak_power_w=4.0, power_mode="15W"))
    assert short[0] == "power: 3.0 W on average, 4.0 W at most (a meter, power mode 15W; 7 readings)"
    assert "not told, the power was read too seldom" in short[1]
    assert "raise --repetitions" in short[1]


def test_a_card_s_power_is_not_taken_for_the_processor_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from edgekit.device import telemetry

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(telemetry, "NvmlSource", lambda gpu: Silent())
    assert open_source(0.1).name == "a fake meter"
    with pytest.raises(NoSource, match="tells a processor's power"):
        open_source(0.1, on_cpu=True)
