from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.chat.defaults import MODEST, chat_sampling, sampling_of
from edgekit.errors import BundleError, EdgekitError
from edgekit.runtime.sampling import SamplingOptions
from tests.chat.tiny_bundle import write_tiny_bundle


@pytest.mark.parametrize(
    ("config", "sampling"),
    [
        ({}, MODEST),
        ({"temperature": 0.9}, MODEST),
        ({"do_sample": False, "temperature": 0.9, "top_k": 5}, SamplingOptions()),
        ({"do_sample": False, "repetition_penalty": 1.1}, SamplingOptions(repetition_penalty=1.1)),
        ({"do_sample": True}, SamplingOptions(temperature=1.0, top_k=50)),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": None},
            SamplingOptions(temperature=0.6, top_p=0.95, top_k=20),
        ),
        ({"do_sample": True, "temperature": 1, "top_k": 0}, SamplingOptions(temperature=1.0)),
    ],
)
def test_what_the_authors_recommend(config: dict[str, Any], sampling: SamplingOptions) -> None:
    assert sampling_of(config, "here") == sampling


@pytest.mark.parametrize("value", ["0.5", True, [1]])
def test_malformed_values_are_refused(value: object) -> None:
    with pytest.raises(BundleError) as caught:
        sampling_of({"do_sample": True, "temperature": value}, "here")
    assert "here: temperature" in caught.value.fact


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(EdgekitError, match="top-p"):
        sampling_of({"do_sample": True, "top_p": 7.0}, "here")


def test_from_a_bundle(tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert chat_sampling(tiny_bundle) == MODEST
    path = write_tiny_bundle(tmp_path / "bundle", generation_config={"do_sample": True, "temperature": 0.5})
    assert chat_sampling(read_bundle(path)) == SamplingOptions(temperature=0.5, top_k=50)
