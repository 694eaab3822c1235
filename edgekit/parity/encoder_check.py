"""The comparison of an encoder's bundle with its PyTorch model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgekit import contract
from edgekit.bundle import Bundle
from edgekit.checkpoint import Checkpoint
from edgekit.errors import BundleError
from edgekit.parity.check import activations_of, check_geometry, checked_weights
from edgekit.parity.compare import Array, Difference, difference
from edgekit.parity.encoder_reference import TorchEncoder, encoder_info
from edgekit.parity.encoder_report import EncoderReport, Likeness
from edgekit.parity.prompts import shipped_prompts
from edgekit.parity.report import Stage
from edgekit.parity.tapped import tapped_inference
from edgekit.parity.tolerance import EMBEDDING, GRAPH, Tolerance
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.encoder_session import EncoderSession, padded
from edgekit.runtime.encoder_text import encoder_tokenizer
from edgekit.runtime.operators import support_for
from edgekit.runtime.threads import default_threads

#: Embeddings of length 1 in float32: a coordinate is about 0.05.
_EXACT = Tolerance(cosine=0.999_999, relative_error=1e-4, max_abs_error=1e-4)


def shipped_texts() -> list[str]:
    """Texts of many kinds and lengths: those of `shipped_prompts`, a single letter, and one that is cut."""
    prompts = shipped_prompts()
    return [*prompts, "a", "\n".join(prompts * 8)]


def encoder_parity(
    bundle: Bundle,
    checkpoint: Checkpoint,
    *,
    texts: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> EncoderReport:
    """Compare hidden states and embeddings with PyTorch in float32, which runs each text by itself.

    As `edgekit.parity.check.parity_of`: an unquantised graph is compared with the checkpoint's weights, a quantised one
    with the values of its codes, and its embeddings with the original model's too.

    Args:
        texts: None for those of `shipped_texts`.

    Raises:
        PromptError: a text is blank.
        BundleError: the bundle cannot be read, or does not belong to the checkpoint.
        ModelError: the checkpoint's model cannot be built.
    """
    progress = progress or SilentProgress()
    info, dtype = encoder_info(bundle), bundle.manifest.dtype
    if dtype not in EMBEDDING:
        raise BundleError(
            f"parity knows the tolerances of {', '.join(EMBEDDING)}", f"the dtype is {dtype!r}", "update edgekit"
        )
    check_geometry(bundle, checkpoint)
    encoded = encoder_tokenizer(bundle).encode(texts if texts is not None else shipped_texts())
    graph = onnx.load(bundle.graph, load_external_data=False)
    activations = activations_of(graph, dtype)
    dequantized, weights = checked_weights(bundle, graph, checkpoint, progress)

    progress.stage("running PyTorch", len(encoded.tokens) * (2 if weights else 1), "texts")
    original = _observed(TorchEncoder(checkpoint, info), encoded.tokens, progress)
    expected = _observed(TorchEncoder(dequantized, info), encoded.tokens, progress) if weights else original
    progress.stage("running the bundle", 3, "ways")
    exact = "float16" if dtype == "fp16" else "float32"
    stages = []
    graph_session = _Tapped(bundle, threads)
    alone = [graph_session.run([text])[0] for text in encoded.tokens]
    stages += _stages("alone", alone, expected, exact)
    progress.advance()
    stages += _stages("padded", graph_session.run(encoded.tokens), expected, exact)
    progress.advance()
    session = EncoderSession(bundle, threads=threads)
    found = session.embed(encoded.tokens, batch=len(encoded.tokens))
    tolerance = _EXACT if activations == "float32" else GRAPH[activations].hidden
    runtime = difference(found, np.stack([embedding for embedding, _ in expected]))
    stages.append(Stage("runtime", "embedding", runtime, tolerance))
    progress.advance()
    return EncoderReport(
        checkpoint=str(checkpoint.path),
        form=bundle.manifest.form,
        dtype=dtype,
        activations=activations,
        reference="dequantized" if weights else "original",
        texts=len(encoded.tokens),
        cut=len(encoded.cut),
        weights=tuple(weights),
        stages=tuple(stages),
        embeddings=likeness(found, np.stack([embedding for embedding, _ in original]), EMBEDDING[dtype]),
    )


#: For each text its embedding [D] and its hidden states [S, hidden] after each layer.
_Observed = list[tuple[Array, list[Array]]]


def _observed(model: TorchEncoder, texts: list[list[int]], progress: Progress) -> _Observed:
    result = []
    for text in texts:
        result.append(model.run(text))
        progress.advance()
    return result


class _Tapped:
    """A bundle's graph with its hidden states as outputs."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        self._taps = list(bundle.manifest.graph.taps)
        expected = [contract.hidden_tap(i) for i in range(bundle.manifest.model.layers + 1)]
        if self._taps != expected:
            raise BundleError(
                "a bundle must name the taps of its hidden states to be compared",
                f"{len(expected)} taps are needed ({expected[0]} to {expected[-1]}), it names {len(self._taps)}",
                "export the bundle again with this version of edgekit",
            )
        self._session = tapped_inference(bundle, self._taps, threads or default_threads(), support_for(bundle, "cpu"))
        self._inputs = {value.name for value in self._session.get_inputs()}
        assert bundle.manifest.tokens.pad is not None
        self._pad = bundle.manifest.tokens.pad

    def run(self, texts: list[list[int]]) -> _Observed:
        """All texts at once, padded to the longest; hidden states without those of padding."""
        ids, mask = padded(texts, self._pad)
        feeds = {contract.INPUT_IDS: ids, contract.ATTENTION_MASK: mask}
        if contract.TOKEN_TYPE_IDS in self._inputs:
            feeds[contract.TOKEN_TYPE_IDS] = np.zeros_like(ids)
        embeddings, *hidden = self._session.run([contract.SENTENCE_EMBEDDING, *self._taps], feeds)
        return [(embeddings[i], [state[i, : len(text)] for state in hidden]) for i, text in enumerate(texts)]


def _stages(mode: str, found: _Observed, expected: _Observed, numbers: str) -> list[Stage]:
    """The worst of all texts, layer by layer and of the embeddings."""
    layers = [Difference() for _ in expected[0][1]]
    for (_, states), (_, references) in zip(found, expected, strict=True):
        pairs = zip(layers, states, references, strict=True)
        layers = [worst.worst(difference(state, reference)) for worst, state, reference in pairs]
    embeddings = difference(np.stack([each for each, _ in found]), np.stack([each for each, _ in expected]))
    hidden = GRAPH[numbers].hidden
    last = _EXACT if numbers == "float32" else hidden
    stages = [Stage(mode, contract.hidden_tap(i), worst, hidden) for i, worst in enumerate(layers)]
    return [*stages, Stage(mode, "embedding", embeddings, last)]


def likeness(found: Array, original: Array, least_cosine: float) -> Likeness:
    """Two sets of embeddings [n, D], row by row."""
    a, b = np.asarray(found, np.float64), np.asarray(original, np.float64)
    with np.errstate(all="ignore"):
        cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        largest = float(np.abs(a - b).max())
    return Likeness(len(a), float(cosines.mean()), float(cosines.min()), largest, least_cosine)
