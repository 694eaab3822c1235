"""Measures of embeddings, against SciPy-free definitions and cases that are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import EdgekitError
from edgekit.evaluate.embeddings import measure_embeddings, nearest, probe_accuracy, ranks, spearman
from edgekit.evaluate.labelled_text import shipped_texts


def test_ranks_give_equal_values_their_mean() -> None:
    assert ranks(np.array([10.0, 30.0, 20.0, 20.0])).tolist() == [0.0, 3.0, 1.5, 1.5]


def test_spearman_by_its_formula_without_ties() -> None:
    """ρ = 1 - 6 Σ d² / (n (n² - 1)) where no values are equal."""
    random = np.random.default_rng(0)
    a, b = random.permutation(50).astype(float), random.permutation(50).astype(float)
    expected = 1 - 6 * ((a - b) ** 2).sum() / (50 * (50**2 - 1))
    assert spearman(a, b) == pytest.approx(expected, abs=1e-12)
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert np.isnan(spearman(a, np.ones(50)))


def test_spearman_of_a_published_example_with_ties() -> None:
    """Ranks by hand: 0, 1.5, 1.5, 3 and 0, 1, 2.5, 2.5."""
    a, b = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 3.0])
    x, y = np.array([0, 1.5, 1.5, 3]) - 1.5, np.array([0, 1, 2.5, 2.5]) - 1.5
    assert spearman(a, b) == pytest.approx((x @ y) / np.sqrt((x @ x) * (y @ y)))


def test_nearest() -> None:
    documents = np.eye(3)
    assert nearest(np.array([[0.1, 0.9, 0], [0.5, 0, 0.6]]), documents).tolist() == [1, 2]


def clusters(noise: float, seed: int = 0) -> tuple[np.ndarray, list[str], list[bool]]:
    """Three classes around the first three axes of 8 dimensions, 30 of each, a third of them for testing."""
    random = np.random.default_rng(seed)
    labels = [name for name in "abc" for _ in range(30)]
    centres = np.repeat(np.eye(8)[:3], 30, axis=0)
    return centres + noise * random.standard_normal((90, 8)), labels, [i % 3 != 0 for i in range(90)]


def test_a_probe_separates_what_can_be_separated_and_guesses_otherwise() -> None:
    vectors, labels, training = clusters(0.1)
    assert probe_accuracy(vectors, labels, np.array(training)) == 1.0
    noise = np.random.default_rng(1).standard_normal((90, 8))
    assert probe_accuracy(noise, labels, np.array(training)) < 0.6


def test_a_probe_is_ridge_regression() -> None:
    """Against the augmented least-squares problem, solved by another method."""
    vectors, labels, training = clusters(1.0)
    train = np.array(training)
    x, classes = vectors[train], np.array(["abc".index(label) for label in labels])
    y = np.eye(3)[classes[train]]
    penalty = np.sqrt(1e-3 * len(x))
    design = np.block([[x, np.ones((len(x), 1))], [penalty * np.eye(8), np.zeros((8, 1))]])
    weights = np.linalg.lstsq(design, np.vstack([y, np.zeros((8, 3))]), rcond=None)[0]
    chosen = (np.hstack([vectors[~train], np.ones((30, 1))]) @ weights).argmax(axis=1)
    expected = (chosen == classes[~train]).mean()
    assert 0.5 < expected < 1
    assert probe_accuracy(vectors, labels, train) == pytest.approx(expected)


def test_equal_embeddings_and_unlike_ones() -> None:
    vectors, labels, training = clusters(0.3)
    same = measure_embeddings(7 * vectors, vectors, labels, training)
    assert same.cosine_min == pytest.approx(1)
    assert same.spearman == pytest.approx(1)
    assert same.retrieval_top1 == 1.0
    assert same.probe_accuracy == same.original_probe_accuracy
    other = measure_embeddings(np.random.default_rng(2).standard_normal((90, 8)), vectors, labels, training)
    assert other.cosine_mean < 0.3
    assert abs(other.spearman) < 0.2
    assert other.retrieval_top1 < 0.3
    assert other.probe_accuracy < other.original_probe_accuracy


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_an_embedding_that_is_none_is_refused(value: float) -> None:
    vectors, labels, training = clusters(0.3)
    bad = vectors.copy()
    bad[4] = value
    with pytest.raises(EdgekitError, match="finite and not zero"):
        measure_embeddings(bad, vectors, labels, training)


def test_the_shipped_texts() -> None:
    texts = shipped_texts()
    assert len(texts) == len({each.text for each in texts}) == 240
    for label in {each.label for each in texts}:
        parts = [each.training for each in texts if each.label == label]
        assert (parts.count(True), parts.count(False)) == (25, 15)


def test_embeddings_of_another_length_are_refused() -> None:
    with pytest.raises(EdgekitError, match="same length"):
        measure_embeddings(np.ones((4, 3)), np.ones((4, 5)), ["a", "b"] * 2, [True, True, False, False])
