"""A model that talks with itself: whose turn it is, what is forced, and how tokens are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.draft import conversations as module
from edgekit.draft.conversations import Frame, conversations, drawn, frame_of
from edgekit.errors import PromptError
from edgekit.runtime.session import Logits, Tokens

FRAME, EOS = Frame((1, 2), (9, 5), (9, 6)), 9


class Talker:
    """Says 30 + its row for three tokens of a turn, then the end; asserts that rows stay aligned."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def reset(self) -> None:
        self.seen.clear()

    def forward(self, tokens: Tokens) -> Logits:
        self.seen.append(tokens)
        whole = np.concatenate(self.seen, 1)
        logits = np.zeros((len(whole), 1, 50), np.float32)
        for row, history in enumerate(whole):
            said = 0
            while history[-1 - said] >= 30:
                said += 1
            logits[row, 0, EOS if said >= 3 else 30 + row] = 99
        return logits


def test_turns_follow_the_frame() -> None:
    found = conversations(
        Talker(),  # type: ignore[arg-type]
        FRAME,
        {EOS},
        rows=2,
        length=16,
        generator=np.random.default_rng(0),
        questions=[[40, 41]],
    )
    assert found[0].tolist() == [1, 2, 40, 41, 9, 5, 30, 30, 30, 9, 6, 30, 30, 30, 9, 5]
    assert found[1].tolist() == [1, 2, 31, 31, 31, 9, 5, 31, 31, 31, 9, 6, 31, 31, 31, 9]


def test_a_turn_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USER_TOKENS", 2)
    found = conversations(
        Talker(),  # type: ignore[arg-type]
        FRAME,
        {EOS},
        rows=1,
        length=8,
        generator=np.random.default_rng(0),
    )
    assert found[0].tolist() == [1, 2, 30, 30, 9, 5, 30, 30]


def test_frame_is_what_the_template_writes_around_words() -> None:
    def render(messages: list[dict[str, str]], begin: bool) -> str:
        return "".join(f"<{m['role'][0]}>{m['content']}|" for m in messages) + ("<a>" if begin else "")

    assert frame_of(render, lambda text: [ord(c) for c in text]) == Frame(
        tuple(map(ord, "<u>")), tuple(map(ord, "|<a>")), tuple(map(ord, "|<u>"))
    )


def test_a_template_that_swallows_words_is_refused() -> None:
    with pytest.raises(PromptError, match="--text"):
        frame_of(lambda messages, begin: "nothing", lambda text: [])


def test_tokens_are_drawn_from_the_nucleus() -> None:
    logits = np.log(np.array([[0.6, 0.3, 0.08, 0.02]] * 4000, np.float32))
    temperatures = np.ones(4000)
    temperatures[:1000] = 0.0
    found = drawn(logits, temperatures, np.random.default_rng(0))
    assert (found[:1000] == 0).all()
    share = np.bincount(found[1000:], minlength=4) / 3000
    # 0.6, 0.3 and 0.08 reach 0.95 of the mass: the last token is never drawn.
    assert share == pytest.approx([0.6 / 0.98, 0.3 / 0.98, 0.08 / 0.98, 0], abs=0.03)
    assert share[3] == 0
