from __future__ import annotations

import pytest

from edgekit.runtime.prefix import PrefixCache, common_prefix
from tests.runtime.fake_sessions import HashSession


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2), ([2], [1], 0)],
)
def test_common_prefix(first: list[int], second: list[int], length: int) -> None:
    assert common_prefix(first, second) == common_prefix(second, first) == length
    assert common_prefix(tuple(first), second) == length


def test_every_length_of_a_common_prefix() -> None:
    for size in (1, 2, 7, 8, 9):
        tokens = list(range(size))
        for length in range(size):
            assert common_prefix(tokens, [*tokens[:length], -1, *tokens[length + 1 :]]) == length


def test_match_leaves_one_token_to_process() -> None:
    session = HashSession()
    cache = PrefixCache(session)
    cache.extend([1, 2, 3])
    assert cache.match([1, 2, 3]) == 2
    assert cache.tokens == (1, 2)
    assert session.cache == [1, 2]


def test_match_and_extend_give_what_a_fresh_session_gives() -> None:
    session = HashSession()
    cache = PrefixCache(session)
    cache.extend([1, 2, 3, 4, 5, 6])
    reused = cache.match([1, 2, 3, 9, 8])
    assert reused == 3
    fresh = PrefixCache(HashSession()).extend([1, 2, 3, 9, 8])
    assert cache.extend([9, 8]).tolist() == fresh.tolist()


def test_a_cache_whose_last_step_was_broken_off_comes_back_into_step() -> None:
    """KeyboardInterrupt between the session's step and the note of it: the session knows more than the cache does."""
    session = HashSession()
    cache = PrefixCache(session)
    cache.extend([1, 2, 3])
    session.cache.append(4)
    assert cache.match([1, 2, 3, 4, 5]) == 3
    assert session.length == len(cache.tokens) == 3


def test_room() -> None:
    cache = PrefixCache(HashSession(capacity=5))
    cache.extend([1, 2])
    assert cache.room == 3
