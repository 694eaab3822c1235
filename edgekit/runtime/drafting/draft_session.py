"""The draft graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.bundle.fields import EXPORT_AGAIN
from edgekit.errors import SessionError
from edgekit.runtime.drafting.draft_signature import draft_sizes
from edgekit.runtime.ort_engine import inference_session, ort_errors, ort_signature

Floats = npt.NDArray[np.float32]

_OUTPUTS = [contract.DRAFT_LOG_WEIGHTS, contract.DRAFT_PROBABILITIES, contract.DRAFT_PRESENT]


class OrtDraftSession:
    """Implements DraftSession."""

    def __init__(
        self, graph: Path, vocabulary: npt.NDArray[np.int64], *, backend: str = "cpu", threads: int | None = None
    ) -> None:
        """Load `graph`.

        Args:
            vocabulary: ids of the tokens that can be drafted, int64 [D], ascending.
            threads: intra-operator threads; None for one per physical core.

        Raises:
            SessionError: the backend is missing here, or the graph cannot be loaded.
            BundleError: inputs and outputs are not those of edgekit.contract, or not of this vocabulary.
            DoesNotFit: memory ran out.
        """
        self._session: Any
        self._session, self.description = inference_session(graph, backend, threads)
        given, made = ort_signature(self._session)
        sizes = draft_sizes(given, made, vocabulary, graph=graph.name, next_step=EXPORT_AGAIN)
        self.features, self.tokens = sizes.features, sizes.tokens
        self.rank, self.components = sizes.rank, sizes.components
        self.window, self.kept = sizes.window, sizes.kept
        self.present: Floats | None = None
        self._outputs = _OUTPUTS if sizes.window else _OUTPUTS[:2]
        self.vocabulary = vocabulary

    def draft(
        self, features: Floats, token: npt.NDArray[np.int64], noise: Floats | None, past: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """See DraftSession.draft."""
        if self._session is None:
            raise SessionError("a session must be open to be used", "it was closed")
        feed = {contract.DRAFT_FEATURES: features, contract.DRAFT_TOKEN: token}
        if noise is not None:
            feed[contract.DRAFT_NOISE] = noise
        if past is not None:
            feed[contract.DRAFT_PAST] = past
        with ort_errors("draft"):
            log_weights, probabilities, *present = self._session.run(self._outputs, feed)
        self.present = present[0] if present else None
        return log_weights, probabilities

    def close(self) -> None:
        """See DraftSession.close."""
        self._session = None
