"""edgekit::TTSparseLinear without a residual → two products with plain matrices: opset 20 has no blocks of codes."""

from __future__ import annotations

from functools import partial

from edgekit.rewrite.rule import Rule
from edgekit.rewrite.rules import tt_pair_to_products

RULE = Rule(
    name="tt_pair_to_plain_products",
    requires=tt_pair_to_products.RULE.requires,
    ensures=tt_pair_to_products.RULE.ensures,
    apply=partial(tt_pair_to_products.apply, codes=False),
    expected=tt_pair_to_products.RULE.expected,
)
