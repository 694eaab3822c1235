"""How many tokens a step gives on average."""

from __future__ import annotations

from collections.abc import Iterable


def expected_tokens(chances: Iterable[float]) -> list[float]:
    """Tokens of a step with 0, 1, 2, ... drafted tokens: 1 + a_1 + a_1 a_2 + ..., the model's own included.

    With one chance p for all n that is (1 - p^(n+1)) / (1 - p) (arXiv 2211.17192, section 3).

    Args:
        chances: a_i of each drafted token to be accepted, given that those before it were.
    """
    found, reached = [1.0], 1.0
    for chance in chances:
        reached *= chance
        found.append(found[-1] + reached)
    return found
