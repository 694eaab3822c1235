"""What a compression may be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.compress.layerwise.options import FORMS, CompressOptions
from edgekit.compress.saten.request import method_named, method_names
from edgekit.errors import ExportError


@pytest.mark.parametrize(
    ("method", "choice", "option"),
    [
        ("round", {"sparsity": "2:4"}, "--sparsity"),
        ("dense", {"factors": "int8"}, "--quantize-factors"),
        ("svd", {"base_bits": (4,)}, "--base-bits"),
        ("svd-aware", {"order": 3}, "--order"),
        ("saten", {"symmetric": True}, "--symmetric"),
    ],
)
def test_what_a_method_does_not_read_is_refused(method: str, choice: dict[str, Any], option: str) -> None:
    with pytest.raises(ExportError, match="must have an effect") as caught:
        CompressOptions(method=method, bits_per_weight=4, **choice)
    assert option in caught.value.fact


def test_every_method_says_what_it_reads() -> None:
    for name in method_names():
        assert set(method_named(name).READS) <= set(FORMS), name
        CompressOptions(method=name, bits_per_weight=4)
