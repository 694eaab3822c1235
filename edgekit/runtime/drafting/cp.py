"""Drafts from CP mixture heads: one run of the draft graph gives the joint distribution of the next n tokens."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from edgekit.errors import SessionError
from edgekit.runtime.drafting.cp_mixture import component_draft, sequential_draft
from edgekit.runtime.drafting.interface import Distribution, DraftContext, Proposal

Rule = Literal["conditional", "component"]
Floats = npt.NDArray[np.float32]


class DraftSession(Protocol):
    """The draft graph, see edgekit.contract.

    B batch, F features, n tokens, r components in all, c computed, D draft vocabulary.
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

    def draft(self, features: Floats, token: npt.NDArray[np.int64], noise: Floats | None) -> tuple[Floats, Floats]:
        """Run it.

        Args:
            features: float32 [B, F].
            token: int64 [B].
            noise: float32 [B, r] where c < r, else None.

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
        token = np.array([context.tokens[-1]], np.int64)
        log_weights, probabilities = self._session.draft(context.features[None], token, self._noise(context))
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

    def _noise(self, context: DraftContext) -> Floats | None:
        """Gumbel noise [1, r]; none where all components are computed, zeros for the likeliest when greedy."""
        if self._session.components == self._session.rank:
            return None
        if context.sampling.greedy:
            return np.zeros((1, self._session.rank), np.float32)
        return context.generator.gumbel(size=(1, self._session.rank)).astype(np.float32)
