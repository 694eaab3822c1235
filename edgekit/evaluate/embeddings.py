"""How much of an encoder's use survives a change: its embeddings against the original's, on labelled texts.

Four questions: are the vectors the same (cosine), are texts as alike as before (Spearman's ρ of all pairwise
similarities), is the nearest text still the same (retrieval), and can a linear classifier still tell what it could (a
ridge regression on the labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import EdgekitError

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[Any]

#: Penalty of the linear probe, per text: vectors of length 1 have coordinates of about 1/sqrt(D).
RIDGE = 1e-3


@dataclass(frozen=True)
class EmbeddingMeasures:
    """Embeddings against the original's of the same texts.

    Attributes:
        cosine_mean, cosine_min: of each text's two embeddings.
        spearman: rank correlation of the similarities of all pairs of texts.
        retrieval_top1: share of test texts whose nearest training text is the same one.
        probe_accuracy, original_probe_accuracy: of linear probes trained on the training texts' embeddings.
    """

    texts: int
    cosine_mean: float
    cosine_min: float
    spearman: float
    retrieval_top1: float
    probe_accuracy: float
    original_probe_accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure_embeddings(
    found: Vectors, original: Vectors, labels: Sequence[str], training: Sequence[bool]
) -> EmbeddingMeasures:
    """Compare embeddings [n, D] with the original's of the same texts.

    Args:
        labels: of each text.
        training: whether a text trains the probe and is searched for, or tests it and searches.

    Raises:
        EdgekitError: an embedding is not finite, or zero, or they are of other shapes than the original's.
    """
    a, b = _units(found), _units(original)
    if a.shape != b.shape:
        raise EdgekitError(
            "embeddings are compared with those of the same texts and of the same length",
            f"they are {list(a.shape)} and {list(b.shape)}",
            "compare with a bundle or a checkpoint of the same model",
        )
    train = np.asarray(training, bool)
    cosines = (a * b).sum(axis=1)
    return EmbeddingMeasures(
        texts=len(a),
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        spearman=spearman(_pairs(a), _pairs(b)),
        retrieval_top1=float((nearest(a[~train], a[train]) == nearest(b[~train], b[train])).mean()),
        probe_accuracy=probe_accuracy(a, labels, train),
        original_probe_accuracy=probe_accuracy(b, labels, train),
    )


def _units(vectors: Vectors) -> Floats:
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise EdgekitError(
            "an embedding must be finite and not zero", "one is not", "check the bundle: edgekit parity BUNDLE"
        )
    return np.asarray(vectors / norms)


def _pairs(units: Floats) -> Floats:
    """Cosines of all pairs of different rows, [n (n - 1) / 2]."""
    return np.asarray((units @ units.T)[np.triu_indices(len(units), 1)])


def nearest(queries: Floats, documents: Floats) -> npt.NDArray[np.int64]:
    """For each query [q, D] the index of the document [d, D] with the largest product, int64 [q]."""
    return np.asarray((queries @ documents.T).argmax(axis=1))


def ranks(values: Floats) -> Floats:
    """Ranks from 0, equal values with their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[inverse])


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation: the correlation of the ranks. Not a number where one side is constant."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def probe_accuracy(vectors: Floats, labels: Sequence[str], training: npt.NDArray[np.bool_]) -> float:
    """Share of test texts that a ridge regression on one-hot labels, with an intercept, puts into the right class."""
    names = sorted(set(labels))
    classes = np.array([names.index(label) for label in labels])
    x = vectors[training]
    centre = x.mean(axis=0)
    targets = np.eye(len(names))[classes[training]]
    shift = targets.mean(axis=0)
    gram = (x - centre).T @ (x - centre) + RIDGE * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - centre).T @ (targets - shift))
    chosen = ((vectors[~training] - centre) @ weights + shift).argmax(axis=1)
    return float((chosen == classes[~training]).mean())
