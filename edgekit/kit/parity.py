"""A session held to golden texts. Needs numpy alone.

The golden logits come from another engine over the very same weights, so only the arithmetic may differ: the
tolerances are those of a graph, by the element type of its activations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekit.kit.golden import Golden, GoldenText, Logits
from edgekit.parity.compare import Difference, agreement, difference
from edgekit.parity.tolerance import GRAPH
from edgekit.runtime.prefix import common_prefix
from edgekit.runtime.session import DecoderSession


@dataclass(frozen=True)
class GoldenParity:
    """How a session compares.

    Attributes:
        activations: element type whose tolerance was used.
        stages: by mode ("decode": token by token; "whole": each text at once), the worst difference of its logits.
        top1: share of positions whose likeliest token is the golden one.
        greedy_prefix: for each text, how many tokens its own greedy continuation shares with the golden one.
        tokens: length of each golden continuation.
        failure: the first bound that is broken, in words; None when all hold.
    """

    made_by: str
    activations: str
    stages: dict[str, Difference]
    top1: float
    greedy_prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    failure: str | None

    @property
    def passed(self) -> bool:
        """Whether every difference is within its tolerance."""
        return self.failure is None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"passed": self.passed, **asdict(self)}


def golden_parity(session: DecoderSession, golden: Golden, activations: str) -> GoldenParity:
    """Compare teacher-forced logits, and how far free greedy decoding agrees.

    Args:
        activations: "float32" or "float16".
    """
    modes = {"decode": _stepped, "whole": _at_once}
    stages = dict.fromkeys(modes, Difference())
    equal: list[bool] = []
    prefixes = []
    for text in golden.texts:
        for mode, read in modes.items():
            found = read(session, text)
            stages[mode] = stages[mode].worst(difference(found, text.logits))
            equal += agreement(found, text.logits).tolist()
        prefixes.append(common_prefix(_greedy(session, text), text.continuation))
    tolerance = GRAPH[activations].logits
    broken = {mode: objection for mode, worst in stages.items() if (objection := tolerance.objection(worst))}
    return GoldenParity(
        made_by=golden.made_by,
        activations=activations,
        stages=stages,
        top1=float(np.mean(equal)),
        greedy_prefix=tuple(prefixes),
        tokens=tuple(len(text.continuation) for text in golden.texts),
        failure=next((f"{mode}: {objection}" for mode, objection in broken.items()), None),
    )


def _stepped(session: DecoderSession, text: GoldenText) -> Logits:
    """The logits of the golden positions, the golden tokens being given one at a time."""
    session.reset()
    rows = [session.forward(np.array([text.prompt], np.int64))[0, -1]]
    rows += [session.forward(np.array([[token]], np.int64))[0, -1] for token in text.continuation[:-1]]
    return np.stack(rows)


def _at_once(session: DecoderSession, text: GoldenText) -> Logits:
    session.reset()
    tokens = np.array([[*text.prompt, *text.continuation[:-1]]], np.int64)
    logits: Logits = session.forward(tokens, keep=len(text.continuation))[0]
    return logits


def _greedy(session: DecoderSession, text: GoldenText) -> list[int]:
    session.reset()
    chosen: list[int] = []
    pending = np.array([text.prompt], np.int64)
    for _ in text.continuation:
        chosen.append(int(session.forward(pending)[0, -1].argmax()))
        pending = np.array([[chosen[-1]]], np.int64)
    return chosen
