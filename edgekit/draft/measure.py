"""How good heads are on text they have not seen: loss, and the acceptance of each drafted token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.draft.batches import Frozen, Window, stacked
from edgekit.draft.tokens import Student
from edgekit.runtime.drafting.expected import expected_tokens


@dataclass(frozen=True)
class Quality:
    """Means over positions.

    Attributes:
        nats: per drafted token, the cross entropy to the model's distribution.
        greedy: acceptance of each drafted token given that those before it were accepted, [n]: the draft's likeliest
            is the model's likeliest.
        sampled: the same at temperature 1: the sum over tokens of min(p, q), the tokens before it being the text's.
        used: mean weight of each component, [r].
    """

    nats: list[float]
    greedy: list[float]
    sampled: list[float]
    used: list[float]

    @property
    def tokens_per_step(self) -> float:
        """Expected tokens of a step that drafts all n greedily, the model's own included."""
        return expected_tokens(self.greedy)[-1]


@torch.no_grad()
def quality(student: Student, frozen: Frozen, windows: Iterable[Window]) -> Quality:
    """Measure heads on windows; drafts are sequential from the mixture's conditionals."""
    heads = student.heads
    n = heads.config.tokens
    device = frozen.unembedding.device
    names = ("nats", "weight", "accepted", "tried", "common")
    sums = {name: torch.zeros(n, dtype=torch.float64, device=device) for name in names}
    used, rows = torch.zeros(heads.config.rank, dtype=torch.float64, device=device), 0
    for window in windows:
        a, v = student(*stacked([window], frozen.states))
        used += a.exp().sum(0).double()
        rows += len(a)
        # Contiguous: CPU products of bfloat16 are a hundred times slower on strided operands.
        v = v.to(frozen.unembedding.dtype).transpose(0, 1).contiguous()
        alive = torch.ones(len(a), dtype=torch.bool, device=device)
        for s in range(n):
            p = functional.linear(v[s], frozen.unembedding).float().log_softmax(-1)
            q = (a.log_softmax(-1)[..., None] + p).logsumexp(1)
            weight, model = (window.targets.weight[:, s] > 0).double(), window.targets.model[:, s]
            sums["nats"][s] -= (weight * (model * q).sum(-1)).sum()
            sums["weight"][s] += weight.sum()
            sums["common"][s] += (weight * torch.minimum(model, q.exp()).sum(-1)).sum()
            draft = frozen.vocabulary[q.argmax(-1)]
            sums["tried"][s] += alive.sum()
            sums["accepted"][s] += (alive & (draft == window.greedy[:, s])).sum()
            # Only where the text says what the draft says are the model's later distributions those of the draft.
            alive &= (draft == window.greedy[:, s]) & (draft == window.text[:, s])
            a = a + _own(p, window.targets.tokens[:, s])
    return Quality(
        (sums["nats"] / sums["weight"].clamp(min=1)).tolist(),
        (sums["accepted"] / sums["tried"].clamp(min=1)).tolist(),
        (sums["common"] / sums["weight"].clamp(min=1)).tolist(),
        (used / max(1, rows)).tolist(),
    )


def _own(p: Tensor, places: Tensor) -> Tensor:
    """log p_alpha of the text's token, [N, r]; 0 where it is outside the draft vocabulary."""
    at = places.clamp(min=0)[:, None, None].expand(-1, p.shape[1], 1)
    return torch.where(places[:, None] >= 0, p.gather(-1, at)[..., 0], 0.0)
