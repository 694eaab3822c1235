"""Ranks shared over layers and sides."""

from __future__ import annotations

import itertools

import pytest
import torch

from edgekit.compress.attention.allocate import Place, Spectrum, expected_loss, pooled
from edgekit.compress.attention.convert import _key_structure


def spectra(step: int = 1) -> dict[Place, Spectrum]:
    return {
        (0, "key"): Spectrum(torch.tensor([8.0, 4.0, 2.0, 1.0]), 2, step),
        (0, "value"): Spectrum(torch.tensor([3.0, 2.9, 0.1]), 1, step),
        (1, "key"): Spectrum(torch.tensor([0.5, 0.25]), 2, step),
    }


def test_the_expected_loss_is_the_least_up_to_the_last_step() -> None:
    """At least as low as any choice that leaves a number free, which a component of two cannot fill."""
    found = spectra()
    for budget in range(6, 16):
        counts = pooled(found, budget)
        used = sum(counts[place] * s.numbers for place, s in found.items())
        assert used <= budget
        least = min(
            expected_loss(found, dict(zip(found, choice, strict=True)))
            for choice in itertools.product(*(range(1, len(s.losses) + 1) for s in found.values()))
            if sum(n * s.numbers for n, s in zip(choice, found.values(), strict=True)) <= budget - 1
        )
        assert expected_loss(found, counts) <= least + 1e-6, budget


def test_a_whole_budget_keeps_all() -> None:
    found = spectra()
    assert pooled(found, 8 + 3 + 4) == {place: len(s.losses) for place, s in found.items()}


def test_each_place_gets_a_step() -> None:
    counts = pooled({**spectra(), (1, "value"): Spectrum(torch.zeros(4), 1)}, 7)
    assert min(counts.values()) == 1


def test_components_come_in_steps() -> None:
    counts = pooled(spectra(step=2), 12)
    assert all(count % 2 == 0 or count == len(spectra()[place].losses) for place, count in counts.items())


@pytest.mark.parametrize(("latent_tail", "expected"), [(0.9, "latent"), (1.1, "spectral")])
def test_a_layer_has_latent_keys_only_where_they_halve_the_loss(latent_tail: float, expected: str) -> None:
    """At 4 numbers: two spectral pairs lose 2 nats; four latent components lose more or less than half of that."""
    spectral = Spectrum(torch.tensor([5.0, 3.0, 1.5, 0.5]), 2)
    latent = Spectrum(torch.tensor([4.0, 3.0, 2.0, 1.0, latent_tail]), 1)
    place = (0, "key")
    plans = {"spectral": ({place: 3}, {place: spectral}), "latent": ({place: 4}, {place: latent})}
    assert _key_structure(plans, 0) == expected
