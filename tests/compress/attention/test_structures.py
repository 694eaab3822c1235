"""Each structure in float64: exact at full rank, with the predicted error below it."""

from __future__ import annotations

import pytest
import torch

from edgekit.compress.attention.structure import structure, structures
from edgekit.compress.attention.structures.latent import head_metrics, readers, refined
from edgekit.compress.attention.structures.spectral import complex_moment
from edgekit.errors import ModelError
from tests.compress.attention.layers import (
    SHAPE,
    converted_layer,
    moments_of,
    random_inputs,
    random_layer,
    run,
)

WHOLE = {"exact": SHAPE.groups, "head": SHAPE.groups, "latent": SHAPE.groups * SHAPE.head_dim}
KEYS = {**WHOLE, "spectral": SHAPE.groups * SHAPE.head_dim // 2}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("value", sorted(WHOLE))
@pytest.mark.parametrize("key", sorted(KEYS))
def test_at_full_rank_the_output_is_the_original_s(key: str, value: str, bias: bool) -> None:
    source, weights = random_layer(bias=bias)
    x = random_inputs(tokens=41)
    statistics = moments_of(source, x)
    parts = [
        structure(side, name).convert(weights, statistics, count)
        for side, name, count in (("key", key, KEYS[key]), ("value", value, WHOLE[value]))
    ]
    module = converted_layer(source, parts[0], parts[1])
    expected = run(source, x)
    torch.testing.assert_close(run(module, x), expected, rtol=0, atol=2e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("key", ["head", "spectral", "latent"])
def test_below_full_rank_it_is_not(key: str) -> None:
    source, weights = random_layer()
    x = random_inputs(tokens=41)
    statistics = moments_of(source, x)
    less = structure("key", key).convert(weights, statistics, KEYS[key] - 1)
    module = converted_layer(source, less, structure("value", "exact").convert(weights, statistics, 3))
    assert (run(module, x) - run(source, x)).abs().max() > 1e-4


@pytest.mark.parametrize("count", [1, 4, 9, 14])
def test_the_error_of_spectral_keys_is_the_energy_left_out(count: int) -> None:
    """½ Σ gradient |error|², measured on the keys that queries see, equals the tail of the losses."""
    source, weights = random_layer()
    x = random_inputs()
    statistics = moments_of(source, x)
    # One weight per pair: a rotation cannot tell its two parts apart.
    gradient = statistics.key_weight.view(3, 2, 5).mean(1, keepdim=True).expand(3, 2, 5)
    kind = structure("key", "spectral")
    entry, tensors = kind.convert(weights, statistics, count)
    rebuilt = rebuilt_keys(entry["frequencies"], tensors, x)
    error = (rebuilt - source.k_proj(x)[0].view(-1, 3, 2, 5)).square().mean(0)
    measured = 0.5 * (error * gradient).sum()
    torch.testing.assert_close(measured, kind.losses(weights, statistics)[count:].sum(), rtol=1e-10, atol=1e-12)


def rebuilt_keys(frequencies: list[int], tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The keys [S, G, 2, D/2] that a spectral cache stands for: sum over pairs of conj(mix) b."""
    rows = x[0] @ tensors["k_proj.weight"].T
    pairs = torch.complex(*rows.chunk(2, 1))
    mixing = torch.complex(tensors["q_mix"][0], tensors["q_mix"][1])[:: SHAPE.share].conj()  # [G, n]
    found = torch.zeros(len(rows), SHAPE.groups, SHAPE.head_dim // 2, dtype=torch.complex128)
    found.index_add_(2, torch.tensor(frequencies), pairs[:, None] * mixing)
    return torch.stack((found.real, found.imag), 2)


def test_spectral_mixing_commutes_with_rope() -> None:
    """Rotating the rebuilt keys equals rebuilding from the rotated rows."""
    source, weights = random_layer()
    x = random_inputs()
    entry, tensors = structure("key", "spectral").convert(weights, moments_of(source, x), 7)
    frequencies = entry["frequencies"]
    phases = torch.exp(1j * torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.5, 0.2, 0.1, 0.03]).double())
    keys = rebuilt_keys(frequencies, tensors, x)
    first = torch.complex(keys[:, :, 0], keys[:, :, 1]) * phases[:, None]
    rows = x[0] @ tensors["k_proj.weight"].T
    pairs = torch.complex(*rows.chunk(2, 1)) * phases[:, frequencies]
    mixing = torch.complex(tensors["q_mix"][0], tensors["q_mix"][1])[:: SHAPE.share].conj()
    last = torch.zeros_like(first).index_add_(2, torch.tensor(frequencies), pairs[:, None] * mixing)
    torch.testing.assert_close(last, first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2])
def test_the_error_of_mixed_heads_is_the_tail_of_the_spectrum(count: int) -> None:
    source, weights = random_layer()
    x = random_inputs()
    statistics = moments_of(source, x)
    kind = structure("key", "head")
    _, tensors = kind.convert(weights, statistics, count)
    rows = (x[0] @ tensors["k_proj.weight"].T).view(-1, count, SHAPE.head_dim)
    rebuilt = torch.einsum("srd,rh->shd", rows, tensors["a_k"])[:, :: SHAPE.share]
    error = (rebuilt - source.k_proj(x)[0].view(-1, 3, 10)).square().sum(-1).mean(0)
    gradient = statistics.key_weight.view(3, 10).mean(1)
    expected = kind.losses(weights, statistics)[count:].sum()
    torch.testing.assert_close(0.5 * (error * gradient).sum(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [1, 8, 29])
def test_the_error_of_latent_keys_is_the_tail_of_the_spectrum(count: int) -> None:
    source, weights = random_layer(bias=True)
    x = random_inputs()
    statistics = moments_of(source, x)
    kind = structure("key", "latent")
    _, tensors = kind.convert(weights, statistics, count)
    rebuilt = x[0] @ tensors["k_proj.weight"].T @ tensors["k_up"] + tensors["k_bias"]
    error = (rebuilt - source.k_proj(x)[0]).square().mean(0)
    expected = kind.losses(weights, statistics)[count:].sum()
    torch.testing.assert_close(0.5 * (error * statistics.key_weight).sum(), expected, rtol=1e-9, atol=1e-12)


def test_readers_of_latent_values_are_least_squares() -> None:
    """A step away from them in any direction is worse, head by head, on the moments they were made for."""
    source, _ = random_layer()
    statistics = moments_of(source, random_inputs())
    down = torch.randn(7, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    up = readers(down, statistics.attended, SHAPE.share)

    def errors(up: torch.Tensor) -> torch.Tensor:
        own = torch.eye(30, dtype=torch.float64).view(3, 10, 30)[torch.arange(9) // 3]
        return torch.stack(
            [
                torch.einsum("dn,nm,dm->", o - u @ down, c, o - u @ down)
                for o, u, c in zip(own, up, statistics.attended, strict=True)
            ]
        )

    best = errors(up)
    for seed in range(4):
        step = torch.randn(up.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert (errors(up + 1e-3 * step) > best).all()


def test_refining_the_subspace_lowers_the_expected_loss() -> None:
    source, weights = random_layer()
    statistics = moments_of(source, random_inputs())
    metrics = head_metrics(weights, statistics)
    start = torch.linalg.qr(torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))[0].T

    def loss(down: torch.Tensor) -> float:
        up = readers(down, statistics.attended, SHAPE.share)
        own = torch.eye(30, dtype=torch.float64).view(3, 10, 30)[torch.arange(9) // 3]
        missing = own - up @ down
        return float(torch.einsum("hdn,hnm,hem,hde->", missing, statistics.attended, missing, metrics))

    assert loss(refined(start, metrics, statistics.attended, SHAPE.share)) < 0.9 * loss(start)


def test_latents_have_unit_power() -> None:
    source, weights = random_layer()
    x = random_inputs()
    statistics = moments_of(source, x)
    key = structure("key", "latent").convert(weights, statistics, 5)[1]["k_proj.weight"]
    torch.testing.assert_close((x[0] @ key.T).square().mean(0), torch.ones(5, dtype=torch.float64))
    rows = x[0] @ structure("key", "spectral").convert(weights, statistics, 5)[1]["k_proj.weight"].T
    pairs = rows.square().mean(0).view(2, 5).sum(0)
    torch.testing.assert_close(pairs, torch.full((5,), 2.0, dtype=torch.float64))


def test_the_complex_moment_is_that_of_the_pairs() -> None:
    source, _ = random_layer()
    keys = source.k_proj(random_inputs())[0].view(-1, 3, 2, 5)
    pairs = torch.complex(keys[:, :, 0], keys[:, :, 1])
    expected = torch.einsum("sgf,shf->fgh", pairs, pairs.conj()) / len(keys)
    moment = keys.flatten(1).T @ keys.flatten(1) / len(keys)
    torch.testing.assert_close(complex_moment(moment, 3), expected)


def test_structures_are_found_by_their_files() -> None:
    assert structures("key") == ["exact", "head", "latent", "spectral"]
    assert structures("value") == ["exact", "head", "latent"]
    with pytest.raises(ModelError, match="exact, head, latent"):
        structure("value", "spectral")
