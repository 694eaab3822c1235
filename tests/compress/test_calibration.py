"""Measured moments and gradients against computing them another way, and what they predict against the loss itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from edgekit.checkpoint import Checkpoint
from edgekit.compress import calibrated
from edgekit.compress.calibrated import moment_groups
from edgekit.compress.calibration import _loss, calibration_text, calibration_tokens, measure
from edgekit.compress.sensitivity import expected_cost
from edgekit.errors import ExportError
from edgekit.layers.decoder import Decoder
from edgekit.models.registry import model_from_checkpoint
from tests.rewrite.tiny_graphs import torch_run

QKV, DOWN, HEAD = "model.layers.1.self_attn.qkv_proj", "model.layers.1.mlp.down_proj", "lm_head"


@pytest.fixture(scope="module")
def tied(tiny: Callable[[str], Checkpoint]) -> Decoder:
    return model_from_checkpoint(tiny("llama"), max_positions=64)


def tokens(count: int = 3, length: int = 10) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(3, 60, (count, length)))


def loss_of(model: Decoder, rows: torch.Tensor) -> float:
    """Summed over all sequences, in nats."""
    with torch.no_grad():
        return sum(float(_loss(model, row[None])) for row in rows)


def test_the_loss_is_that_of_the_next_token(tied: Decoder) -> None:
    (row,) = tokens(1)
    logits, _ = torch_run(tied, row[None].numpy(), np.ones((1, len(row)), np.int64))
    shifted = logits[0].astype(np.float64)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    expected = -sum(log_probabilities[i, row[i + 1]] for i in range(len(row) - 1))
    assert loss_of(tied, row[None]) == pytest.approx(expected, rel=1e-5)


def test_moments(tied: Decoder) -> None:
    rows = tokens()
    statistics = measure(tied, rows, {QKV, HEAD}, gradients=False)
    assert set(statistics.moments) == {QKV, HEAD}
    assert statistics.gradients == {}
    assert statistics.tokens == rows.numel()
    hidden = []
    for row in rows:
        attention = tied.model.layers[0].self_attn.shape
        past = [(torch.zeros(1, attention.kv_heads, 0, attention.head_dim),) * 2 for _ in tied.model.layers]
        with torch.no_grad():
            hidden.append(tied(row[None], torch.ones_like(row[None]), past, torch.tensor([0])).hidden)
    for unit, layer, norm in ((QKV, 1, tied.model.layers[1].input_layernorm), (HEAD, 2, tied.model.norm)):
        x = np.concatenate([states[layer][0].numpy() for states in hidden]).astype(np.float64)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * norm.weight.detach().numpy()
        np.testing.assert_allclose(statistics.moments[unit].numpy(), x.T @ x / len(x), rtol=1e-3, atol=1e-4)


def test_gradients_by_finite_differences(tiny: Callable[[str], Checkpoint]) -> None:
    model = model_from_checkpoint(tiny("llama"), torch.float64, max_positions=64)
    rows = tokens(count=2, length=5)
    measured = measure(model, rows, set(), gradients=True).gradients
    modules = {"model.layers.0.self_attn.k_proj": (0, 17), "model.layers.1.mlp.down_proj": (5, 63)}
    for name, outputs in modules.items():
        for output in outputs:
            squares = 0.0
            for row, position in itertools.product(rows, range(5)):
                slope = 0.0
                for step in (1e-4, -1e-4):

                    def moved(module: object, inputs: object, y: torch.Tensor, p: int = position, s: float = step,
                              n: int = output) -> torch.Tensor:  # fmt: skip
                        y = y.clone()
                        y[0, p, n] += s
                        return y

                    handle = model.get_submodule(name).register_forward_hook(moved)
                    slope += loss_of(model, row[None]) / (2 * step)
                    handle.remove()
                squares += slope**2
            assert float(measured[f"{name}.weight"][output]) == pytest.approx(squares / rows.numel(), rel=1e-3)


@pytest.mark.parametrize(("name", "head"), [("llama", "model.embed_tokens.weight"), ("llama-untied", "lm_head.weight")])
def test_the_gradient_of_the_head(tiny: Callable[[str], Checkpoint], name: str, head: str) -> None:
    """Cross entropy's own: probability minus 1 for the token that came; the last position predicts nothing."""
    checkpoint = tiny(name)
    model = model_from_checkpoint(checkpoint, max_positions=64)
    rows = tokens()
    gradients = measure(model, rows, set(), gradients=True).gradients
    squares = np.zeros(checkpoint.config["vocab_size"])
    for row in rows.numpy():
        logits, _ = torch_run(model, row[None], np.ones((1, len(row)), np.int64))
        probabilities = np.exp(logits[0] - logits[0].max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        probabilities[np.arange(len(row) - 1), row[1:]] -= 1
        squares += (probabilities[:-1] ** 2).sum(0)
    np.testing.assert_allclose(gradients[head].numpy(), squares / rows.numel(), rtol=1e-3, atol=1e-7)
    matrices = {n for n, p in model.named_parameters() if p.ndim == 2 and n != "model.embed_tokens.weight"}
    assert set(gradients) == matrices | {head}


def test_hooks_are_gone_afterwards(tied: Decoder) -> None:
    measure(tied, tokens(1), {QKV, DOWN, HEAD}, gradients=True)
    assert not any(module._forward_hooks for module in tied.modules())


def sampled(model: Decoder, count: int, length: int, vocabulary: int) -> torch.Tensor:
    """Sequences drawn from the model itself: for them the Fisher information is the curvature of the loss."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(3, vocabulary, (count, 1), generator=generator)
    for _ in range(length - 1):
        logits, _ = torch_run(model, rows.numpy(), np.ones(tuple(rows.shape), np.int64))
        probabilities = torch.softmax(torch.from_numpy(logits[:, -1]), -1)
        rows = torch.cat([rows, torch.multinomial(probabilities, 1, generator=generator)], 1)
    return rows


def test_the_predicted_cost_of_a_small_error(tiny: Callable[[str], Checkpoint]) -> None:
    checkpoint = tiny("llama")
    model = model_from_checkpoint(checkpoint, torch.float64, max_positions=64)
    rows = sampled(model_from_checkpoint(checkpoint, max_positions=64), 32, 12, checkpoint.config["vocab_size"])
    statistics = measure(model, rows, {DOWN}, gradients=True)
    weight = model.get_parameter(f"{DOWN}.weight")
    rng = np.random.default_rng(1)
    before, predicted, real = loss_of(model, rows), 0.0, 0.0
    for _ in range(3):
        error = 0.02 * rng.standard_normal(tuple(weight.shape)).astype(np.float32)
        predicted += expected_cost(
            error, statistics.moments[DOWN].numpy(), statistics.gradients[f"{DOWN}.weight"].numpy()
        )
        for sign in (1, -1):  # the average of both has no first-order term
            step = sign * torch.from_numpy(error).double()
            weight.data += step
            real += (loss_of(model, rows) - before) / 2 / rows.numel()
            weight.data -= step
    assert real > 0
    assert 0.4 < predicted / real < 2.5


def test_units_are_grouped_by_the_memory_of_their_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrated, "MOMENT_BYTES", 3 * 4 * 10 * 10)
    inputs = {"a": 10, "b": 10, "c": 10, "d": 10, "huge": 100, "e": 10}
    assert moment_groups(inputs) == [["a", "b", "c"], ["d"], ["huge"], ["e"]]
    assert moment_groups({"huge": 100}) == [["huge"]]


def test_passages_are_spread_over_the_text(tiny: Callable[[str], Checkpoint]) -> None:
    tokenizer = tiny("llama").tokenizer_files()["tokenizer.json"]
    text = calibration_text()[:400]
    (whole,) = calibration_tokens(tokenizer, text, 1, 100)
    rows = calibration_tokens(tokenizer, text, 3, 20)
    assert rows.shape == (3, 20)
    assert torch.equal(rows[0], whole[:20])
    last = Tokenizer.from_str(tokenizer.decode()).encode(text, add_special_tokens=False).ids[-20:]
    assert rows[2].tolist() == last
    assert not torch.equal(rows[1], rows[2])


def test_a_text_that_is_too_short_is_refused(tiny: Callable[[str], Checkpoint]) -> None:
    tokenizer = tiny("llama").tokenizer_files()["tokenizer.json"]
    with pytest.raises(ExportError) as raised:
        calibration_tokens(tokenizer, "short", 2, 50)
    assert "at least 50 tokens" in raised.value.rule
