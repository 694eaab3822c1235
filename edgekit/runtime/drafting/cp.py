"""Drafts from CP mixture heads: one run of the draft graph gives the joint distribution of the next n tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.errors import SessionError
from edgekit.runtime.drafting.cp_mixture import component_draft, sequential_draft
from edgekit.runtime.drafting.interface import Distribution, DraftContext, Proposal

Rule = Literal["conditional", "component"]
Floats = npt.NDArray[np.float32]


class DraftSession(Protocol):
    """The draft graph, see edgekit.contract.

    B batch, F features, n tokens, r components in all, c computed, D draft vocabulary, W earlier positions that are
    seen, N numbers kept of each, P new positions.
    """

    @property
    def tokens(self) -> int:
        """n, tokens it speaks of."""

    @property
    def rank(self) -> int:
        """r."""

    @property
    def components(self) -> int:
        """c <= r."""

    @property
    def vocabulary(self) -> npt.NDArray[np.int64]:
        """Ids of the tokens that can be drafted, int64 [D], ascending."""

    @property
    def window(self) -> int:
        """W; 0 where a draft sees its own position only."""

    @property
    def kept(self) -> int:
        """N; 0 without a window."""

    @property
    def present(self) -> Floats | None:
        """With a window, the `past` [B, W, N] of what follows the last draft, owned by the caller; None before one."""

    def draft(
        self, features: Floats, token: npt.NDArray[np.int64], noise: Floats | None, past: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Run it.

        Args:
            features: float32 [B, F], or [B, P, F] with a window.
            token: int64 [B], or [B, P].
            noise: float32 [B, r] where c < r, else None.
            past: float32 [B, W, N] with a window: what was kept of earlier positions, zeros where there are none.

        Returns:
            Log weights float32 [B, c] and probabilities float32 [B, n, c, D], owned by the caller.

        Raises:
            SessionError: the engine failed.
        """

    def close(self) -> None:
        """Free the weights."""


class CPDrafter:
    """Implements Drafter over a draft graph.

    Where the graph computes c < r components, which ones is drawn before any token, in proportion to their weights and
    without repetition (Gumbel-top-c, arXiv 1903.06059); the mixture of these is then what tokens are drawn from, so
    that verification stays exact.
    """

    name = "cp"
    instant = False

    def __init__(self, session: DraftSession, rule: Rule = "conditional") -> None:
        """Takes the session over.

        Args:
            rule: "conditional": each token from the mixture, given those before it. "component": one component is
                drawn and all tokens from it, which is cheaper and accepted less often.

        Raises:
            SessionError: there is no such rule.
        """
        if rule not in get_args(Rule):
            raise SessionError(f"a rule of drafting is one of {', '.join(get_args(Rule))}", f"it is {rule!r}")
        self._session = session
        #: With a window: what is kept, and the tokens that it is of, as far as the window reaches.
        self._past: tuple[Floats, int, tuple[int, ...]] | None = None
        self._draft = sequential_draft if rule == "conditional" else component_draft
        self.longest = session.tokens

    def propose(self, context: DraftContext, count: int) -> Proposal:
        """See Drafter.propose.

        Raises:
            SessionError: the context has no features, or the engine failed.
        """
        if context.features is None:
            raise SessionError(
                "draft heads read the decoder's features",
                "this decoder gives none",
                "make the bundle with draft heads, or choose another --draft",
            )
        log_weights, probabilities = self._run(context.features, context)
        found = self._draft(log_weights[0], probabilities[0, :count], context.sampling, context.generator)
        ids = self._session.vocabulary
        return Proposal(
            tuple(int(ids[place]) for place, _ in found),
            tuple(None if q is None else Distribution(ids[q.ids], q.probabilities) for _, q in found),
            self.name,
        )

    def close(self) -> None:
        """See Drafter.close."""
        self._session.close()

    def _run(self, features: Floats, context: DraftContext) -> tuple[Floats, Floats]:
        """The draft after the last token, from features [P, F] of the last positions that are known."""
        session, tokens, noise = self._session, context.tokens, self._noise(context)
        if not session.window:
            return session.draft(features[-1:], np.array([tokens[-1]], np.int64), noise)
        count = len(tokens) - 1  # positions that chose a token
        past, done = self._known(tokens, count, len(features))
        new = min(count - done, len(features), contract.DRAFT_POSITIONS)
        known = np.array([tokens[-new:]], np.int64)
        found = session.draft(features[None, -new:], known, noise, past)
        if session.present is not None:
            self._past = session.present, count, tuple(tokens[-session.window - 1 :])
        return found

    def _known(self, tokens: Sequence[int], count: int, given: int) -> tuple[Floats, int]:
        """What was kept of the positions before the new ones, and how many positions these were."""
        if self._past is not None:
            past, done, last = self._past
            # Texts that were taken back, or are others, begin anew; so do those whose positions since are not known.
            if (
                done < count <= done + min(given, contract.DRAFT_POSITIONS)
                and tuple(tokens[done + 1 - len(last) : done + 1]) == last
            ):
                return past, done
        return np.zeros((1, self._session.window, self._session.kept), np.float32), 0

    def _noise(self, context: DraftContext) -> Floats | None:
        """Gumbel noise [1, r]; none where all components are computed, zeros for the likeliest when greedy."""
        if self._session.components == self._session.rank:
            return None
        if context.sampling.greedy:
            return np.zeros((1, self._session.rank), np.float32)
        return context.generator.gumbel(size=(1, self._session.rank)).astype(np.float32)
