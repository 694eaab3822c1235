"""The closed gradients of the drafting loss against autograd, in float64."""

from __future__ import annotations

import pytest
import torch

from edgekit.draft.loss import MixtureLoss, Targets, balance, reference_loss


def example(
    rank: int, tokens: int = 3, rows: int = 7, width: int = 5, vocabulary: int = 11
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(rank)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    places = torch.randint(0, vocabulary, (rows, tokens), generator=generator)
    places[1, 0], places[2, 1], places[3, -1] = -1, -1, -1
    weight = torch.tensor([1.0, 0.8, 0.5], dtype=torch.float64)[:tokens].repeat(rows, 1)
    weight[4, 1:] = 0
    model = normal(rows, tokens, vocabulary).softmax(-1) * 0.9
    v, log_w = normal(rows, tokens, rank, width), normal(rows, rank).log_softmax(-1)
    return v, log_w, normal(vocabulary, width), Targets(places, model, weight)


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("beta", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("chunk", [3, 32])
def test_gradients_are_those_of_autograd(rank: int, beta: float, chunk: int) -> None:
    v, log_w, unembedding, targets = example(rank)
    found = [v.clone().requires_grad_(), log_w.clone().requires_grad_()]
    expected = [v.clone().requires_grad_(), log_w.clone().requires_grad_()]
    loss = MixtureLoss.apply(*found, unembedding, targets, beta, chunk)
    reference = reference_loss(*expected, unembedding, targets, beta)
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=1e-12)
    (2 * loss).backward()
    (2 * reference).backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-11)


def test_without_distillation_it_is_minus_log_of_the_joint() -> None:
    v, log_w, unembedding, targets = example(4)
    targets = targets._replace(tokens=targets.tokens.clamp(min=0), weight=torch.ones_like(targets.weight))
    p = (v @ unembedding.T).log_softmax(-1)
    own = torch.stack([p[:, s, :, :].gather(-1, targets.tokens[:, s, None, None].expand(-1, 4, 1)) for s in range(3)])
    joint = (log_w + own[..., 0].sum(0)).logsumexp(-1)
    loss = MixtureLoss.apply(v, log_w, unembedding, targets, 0.0)
    torch.testing.assert_close(loss, -joint.sum(), rtol=1e-12, atol=1e-12)


def test_a_closed_form_that_forgets_the_posterior_would_be_seen() -> None:
    """The gradient of log w is not zero, and neither is what later positions send back to earlier ones."""
    v, log_w, unembedding, targets = example(3)
    alone = targets._replace(weight=torch.cat([torch.zeros(7, 2), torch.ones(7, 1)], 1).double())
    variable = v.clone().requires_grad_()
    MixtureLoss.apply(variable, log_w, unembedding, alone, 0.5).backward()
    assert variable.grad is not None
    assert variable.grad[0, 0].abs().max() > 1e-4
    assert variable.grad[1, 0].abs().max() == 0  # its first token is not in the vocabulary: it says nothing


def test_balance_is_one_when_all_components_are_used_alike() -> None:
    even = torch.full((6, 3), 1 / 3).log()
    even[torch.arange(6), torch.arange(6) % 3] += 1e-9
    assert balance(even.log_softmax(-1)).item() == pytest.approx(1.0, abs=1e-6)
    one = torch.tensor([[0.98, 0.01, 0.01]]).log().repeat(6, 1)
    assert balance(one).item() == pytest.approx(2.94, abs=1e-5)
