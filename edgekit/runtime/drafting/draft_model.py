"""Drafts from a smaller model: its own next tokens, one after the other."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from edgekit.errors import SessionError
from edgekit.runtime.drafting.distributions import drafted, target
from edgekit.runtime.drafting.interface import DraftContext, Proposal
from edgekit.runtime.options import PROMPT_CHUNK
from edgekit.runtime.prefix import PrefixCache
from edgekit.runtime.session import DecoderSession

if TYPE_CHECKING:
    from edgekit.bundle import Bundle

_TOKENIZER = "tokenizer.json"


class DraftModelDrafter:
    """Implements Drafter over another decoder, whose cache follows the context: what was refused is rolled back."""

    name = "model"
    instant = False

    def __init__(self, session: DecoderSession, longest: int = 8) -> None:
        """Takes the session over; its tokens must be those of the model that verifies, see `check_same_tokens`."""
        self._cache = PrefixCache(session)
        self.longest = longest

    def propose(self, context: DraftContext, count: int) -> Proposal:
        """See Drafter.propose. Fewer tokens, or none, where the draft model's own context ends.

        Raises:
            SessionError, DoesNotFit: see DecoderSession.forward.
        """
        tokens = context.tokens
        # The last token proposed is not processed.
        count = min(count, self._cache.session.capacity - len(tokens) + 1)
        found = []
        pending = tokens[self._cache.match(tokens) :] if count > 0 else []
        # An array, because the repetition penalty reads it as one every time, and alone reads it.
        history = array("q", tokens if context.sampling.repetition_penalty != 1.0 else ())
        for _ in range(count):
            for start in range(0, len(pending), PROMPT_CHUNK):
                logits = self._cache.extend(pending[start : start + PROMPT_CHUNK])
            token, q = drafted(target(logits, context.sampling, history), context.generator)
            found.append((token, q))
            history.append(token)
            pending = [token]
        return Proposal(tuple(token for token, _ in found), tuple(q for _, q in found), self.name)

    def close(self) -> None:
        """See Drafter.close."""
        self._cache.session.close()


def check_same_tokens(model: Bundle, draft: Bundle) -> None:
    """Refuse a draft model whose tokens are not the model's.

    Raises:
        SessionError: the vocabularies differ in size, or the tokenizer files in content; or one has none.
    """
    sizes = [bundle.manifest.model.vocab_size for bundle in (model, draft)]
    digests = [_tokenizer_digest(bundle) for bundle in (model, draft)]
    if sizes[0] != sizes[1]:
        fact = f"{draft.path} has {sizes[1]} tokens, {model.path} has {sizes[0]}"
    elif None in digests:
        fact = f"{(model, draft)[digests.index(None)].path} lists no {_TOKENIZER} to tell by"
    elif digests[0] != digests[1]:
        fact = f"{_TOKENIZER} of {draft.path} differs from that of {model.path}"
    else:
        return
    raise SessionError(
        "a draft model has the same tokens as the model it drafts for",
        fact,
        "choose a smaller model of the same family",
    )


def _tokenizer_digest(bundle: Bundle) -> str | None:
    return next((entry.sha256 for entry in bundle.manifest.files if entry.name == _TOKENIZER), None)
