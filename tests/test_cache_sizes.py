"""Caches of other attentions, against counts made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.cache_sizes import cache_numbers, key_value_sizes


def test_smollm2() -> None:
    assert cache_numbers(30, 9, 3, 64) == {
        "MHA": 2 * 30 * 9 * 64,
        "GQA with 3 key heads": 2 * 30 * 3 * 64,
        "MQA": 2 * 30 * 64,
    }


@pytest.mark.parametrize(
    ("heads", "groups"), [(2, 2), (3, 2), (6, 2), (8, 2), (10, 3), (12, 3), (16, 4), (34, 9), (47, 12)]
)
@pytest.mark.parametrize("kv_heads", ["all", "one"])
def test_a_model_without_groups_is_compared_with_usual_ones(heads: int, groups: int, kv_heads: str) -> None:
    assert cache_numbers(1, heads, heads if kv_heads == "all" else 1, 2) == {
        "MHA": 4 * heads,
        f"GQA with {groups} key heads": 4 * groups,
        "MQA": 4,
    }


def test_one_head_has_one_group() -> None:
    assert cache_numbers(1, 1, 1, 2) == {"MHA": 4, "GQA with 1 key head": 4, "MQA": 4}


def test_sizes_from_a_configuration() -> None:
    config = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
    found = key_value_sizes(config)
    assert found is not None
    assert (found.own, found.kv_heads, found.head_dim) == (2 * 2 * 4 * 8, 4, 8)
    grouped = key_value_sizes({**config, "num_key_value_heads": 2, "head_dim": 16})
    assert grouped is not None
    assert grouped.own == 2 * 2 * 2 * 16


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_hidden_layers": 2},
        {"num_hidden_layers": 2, "num_attention_heads": 0, "hidden_size": 8},
        {"num_hidden_layers": 2, "num_attention_heads": "4", "hidden_size": 8},
        {"num_hidden_layers": "2", "num_attention_heads": 4, "hidden_size": 8},
    ],
)
def test_an_unknown_cache_is_none(config: dict[str, Any]) -> None:
    assert key_value_sizes(config) is None
