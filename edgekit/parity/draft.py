"""A bundle's draft graph beside its heads in PyTorch: the same features and tokens, the same components.

T positions, F features, n tokens, r components, c of them computed, D draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from edgekit.bundle import Bundle
from edgekit.draft.head_file import DraftFile, shortened
from edgekit.errors import BundleError
from edgekit.layers.decoder import Decoder
from edgekit.parity.report import DraftAgreement
from edgekit.parity.tolerance import DRAFT
from edgekit.runtime.drafting.draft_session import OrtDraftSession
from edgekit.runtime.drafting.vocabulary import draft_vocabulary

Floats = npt.NDArray[np.float32]

#: Positions of each text at which a draft is made, spread over it.
POSITIONS = 32
#: Added to a component's log weight so that both choose the same, in the same order; log weights are far smaller.
_ORDER = 1000.0


class TorchDraft:
    """The heads over a model's embedding and head."""

    def __init__(self, found: DraftFile, model: Decoder) -> None:
        embedding = model.model.embed_tokens.weight
        head = embedding if model.lm_head is None else model.lm_head.weight
        self._heads = found.heads
        with torch.inference_mode():
            self._unembedding = head[found.vocabulary].float()
            self._table = found.table

    def draft(
        self, features: Floats, tokens: Sequence[int], places: npt.NDArray[np.int64], count: int
    ) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
        """The `count` heaviest components [P, c], their log weights [P, c], and what each says, [P, n, c, D].

        Args:
            features: [T, F]; tokens: T, the one after each position.
            places: P of the T positions, at which drafts are made.
        """
        with torch.inference_mode():
            known = self._table[torch.tensor(tokens)]
            u = self._heads.trunk_output(torch.from_numpy(features)[None], known[None])[0, torch.from_numpy(places)]
            weights = self._heads.log_weights(u)
            chosen = weights.topk(count, -1).indices
            v = self._heads.positions(u)
            index = chosen[:, None, :, None].expand(-1, v.shape[1], -1, v.shape[-1])
            probabilities = torch.softmax(v.gather(2, index) @ self._unembedding.T, -1)
            kept = weights.gather(-1, chosen).log_softmax(-1)
        return chosen.numpy(), kept.numpy(), probabilities.numpy()


@dataclass
class DraftComparison:
    """Collects how far the graph's drafts are from the heads', over several texts."""

    bundle: Bundle
    heads: TorchDraft
    session: OrtDraftSession
    variations: list[npt.NDArray[np.float64]] = field(default_factory=list)
    divergences: list[npt.NDArray[np.float64]] = field(default_factory=list)
    agreeing: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    weights: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, features: Floats, text: Sequence[int]) -> None:
        """Draft after some tokens of a text of T, from its features [T, F]."""
        # The token after a position is known when its draft is made.
        places = np.unique(np.linspace(0, len(text) - 2, POSITIONS).astype(np.int64))
        features, tokens = features[: len(text) - 1], np.asarray(text[1:], np.int64)
        chosen, log_weights, expected = self.heads.draft(features, text[1:], places, self.session.components)
        noise = None
        if self.session.components < self.session.rank:
            noise = np.zeros((len(places), self.session.rank), np.float32)
            steps = _ORDER * np.arange(self.session.components, 0, -1, dtype=np.float32)
            np.put_along_axis(noise, chosen, np.broadcast_to(steps, chosen.shape), -1)
        found_weights, found = self._drafts(features, tokens, places, noise)
        if noise is None:  # all, in the heads' own order
            order = chosen.argsort(-1)
            log_weights = np.take_along_axis(log_weights, order, -1)
            expected = np.take_along_axis(expected, order[:, None, :, None], 2)
        self.weights.append(_variation(np.exp(found_weights), np.exp(log_weights)))
        self.variations.append(_variation(found, expected))
        self.divergences.append(_divergence(found, expected))
        self.agreeing.append(found.argmax(-1) == expected.argmax(-1))

    def _drafts(
        self, features: Floats, tokens: npt.NDArray[np.int64], places: npt.NDArray[np.int64], noise: Floats | None
    ) -> tuple[Floats, Floats]:
        """What the graph drafts at those places: all at once, or along the text where it sees earlier positions."""
        session = self.session
        if not session.window:
            return session.draft(features[places], tokens[places], noise)
        past, begin, found = np.zeros((1, session.window, session.kept), np.float32), 0, []
        for index, place in enumerate(places.tolist()):
            new, chosen = slice(begin, place + 1), None if noise is None else noise[index : index + 1]
            found.append(session.draft(features[None, new], tokens[None, new], chosen, past))
            assert session.present is not None
            past, begin = session.present, place + 1
        return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])

    def result(self) -> DraftAgreement:
        """All texts together."""
        variations = np.concatenate([each.ravel() for each in self.variations])
        return DraftAgreement(
            positions=sum(len(each) for each in self.variations),
            kl_mean=float(np.concatenate([each.ravel() for each in self.divergences]).mean()),
            variation_mean=float(variations.mean()),
            variation_max=float(variations.max()),
            top1=float(np.concatenate([each.ravel() for each in self.agreeing]).mean()),
            weights_variation=float(np.concatenate(self.weights).mean()),
            tolerance=DRAFT[self.bundle.manifest.dtype],
        )

    def close(self) -> None:
        """Free the draft graph."""
        self.session.close()


def draft_comparison(bundle: Bundle, found: DraftFile, model: Decoder, threads: int | None) -> DraftComparison:
    """Open the draft graph of a bundle that has one.

    Args:
        found: its heads.
        model: the original one.

    Raises:
        BundleError: its vocabulary is not that of the heads, or its graph is not as the contract says.
        SessionError, DoesNotFit: ONNX Runtime cannot load it.
    """
    draft = bundle.manifest.draft
    assert draft is not None
    # The graph may speak of fewer tokens than the heads; if of more, its shapes are refused below.
    found = shortened(found, min(draft.tokens, found.heads.config.tokens))
    stored = draft_vocabulary(bundle, draft)
    if not np.array_equal(stored, found.vocabulary.numpy()):
        raise BundleError(
            "a bundle drafts the tokens that its heads were trained for",
            f"{draft.vocabulary} lists others",
            "export the bundle again: edgekit export --draft HEADS",
        )
    session = OrtDraftSession(bundle.file(draft.file), stored, threads=threads)
    return DraftComparison(bundle, TorchDraft(found, model), session)


def _variation(found: Floats, expected: Floats) -> npt.NDArray[np.float64]:
    """Total variation of two distributions over the last axis."""
    return np.asarray(0.5 * np.abs(found.astype(np.float64) - expected).sum(-1))


def _divergence(found: Floats, expected: Floats) -> npt.NDArray[np.float64]:
    """KL(expected ‖ found) in nats over the last axis; where the first is 0 nothing is added."""
    least = np.finfo(np.float32).tiny
    p, q = np.maximum(expected.astype(np.float64), least), np.maximum(found.astype(np.float64), least)
    return np.asarray(np.maximum((expected * (np.log(p) - np.log(q))).sum(-1), 0.0))
