"""The draft graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.bundle.fields import EXPORT_AGAIN
from edgekit.contract import TensorSignature
from edgekit.errors import BundleError, SessionError
from edgekit.runtime.ort_engine import inference_session, ort_errors, ort_signature

Floats = npt.NDArray[np.float32]

#: Name, dtype and number of axes of everything that goes in and comes out; the noise only where it is needed.
_INPUTS = {
    contract.DRAFT_FEATURES: ("float32", 2),
    contract.DRAFT_TOKEN: ("int64", 1),
    contract.DRAFT_NOISE: ("float32", 2),
}
_OUTPUTS = {contract.DRAFT_LOG_WEIGHTS: ("float32", 2), contract.DRAFT_PROBABILITIES: ("float32", 4)}


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
        self._graph = graph.name
        inputs = self._checked(given, _INPUTS, optional=contract.DRAFT_NOISE)
        outputs = self._checked(made, _OUTPUTS)
        self.features = self._size(inputs[contract.DRAFT_FEATURES], 1)
        self.tokens, self.components, drafted = (
            self._size(outputs[contract.DRAFT_PROBABILITIES], i) for i in (1, 2, 3)
        )
        noise = inputs.get(contract.DRAFT_NOISE)
        self.rank = self.components if noise is None else self._size(noise, 1)
        if vocabulary.shape != (drafted,) or bool((np.diff(vocabulary) <= 0).any()):
            raise self._refusal(f"it drafts {drafted} tokens, and its vocabulary is not as many ascending ids")
        self.vocabulary = vocabulary

    def draft(self, features: Floats, token: npt.NDArray[np.int64], noise: Floats | None) -> tuple[Floats, Floats]:
        """See DraftSession.draft."""
        if self._session is None:
            raise SessionError("a session must be open to be used", "it was closed")
        feed = {contract.DRAFT_FEATURES: features, contract.DRAFT_TOKEN: token}
        if noise is not None:
            feed[contract.DRAFT_NOISE] = noise
        with ort_errors("draft"):
            log_weights, probabilities = self._session.run(list(_OUTPUTS), feed)
        return log_weights, probabilities

    def close(self) -> None:
        """See DraftSession.close."""
        self._session = None

    def _checked(
        self, found: list[TensorSignature], wanted: dict[str, tuple[str, int]], optional: str = ""
    ) -> dict[str, TensorSignature]:
        """The inputs or the outputs by name. Raises BundleError unless they are those wanted."""
        tensors = {tensor.name: tensor for tensor in found}
        kinds = {name: (tensor.dtype, len(tensor.shape)) for name, tensor in tensors.items()}
        if kinds != {name: kind for name, kind in wanted.items() if name != optional or name in kinds}:
            raise self._refusal(f"it has {kinds} instead of {wanted}")
        return tensors

    def _size(self, tensor: TensorSignature, axis: int) -> int:
        size = tensor.shape[axis]
        if not isinstance(size, int) or size < 1:
            raise self._refusal(f"axis {axis} of its {tensor.name} is {size}, not a fixed size")
        return size

    def _refusal(self, fact: str) -> BundleError:
        return BundleError(
            "a draft graph has the inputs and outputs of edgekit.contract", f"{self._graph}: {fact}", EXPORT_AGAIN
        )
