"""Small heads, caches and frozen models that the tests of drafting share."""

from __future__ import annotations

import numpy as np
import torch

from edgekit.draft.batches import Frozen
from edgekit.draft.config import DraftConfig
from edgekit.draft.features import FeatureCache
from edgekit.draft.heads import DraftHeads
from edgekit.draft.initial import first_heads
from edgekit.draft.tokens import Student, TokenReader
from edgekit.layers.norm import RMSNorm

WIDTH, VOCABULARY, STATES = 12, 30, 9


def config(rank: int = 1, tokens: int = 3, vocabulary: int = 17) -> DraftConfig:
    return DraftConfig(
        tokens=tokens,
        rank=rank,
        hidden_size=WIDTH,
        feature_layers=(1, 2),
        token_rank=5,
        trunk_width=16,
        residual_rank=7,
        component_rank=4 if rank > 1 else 0,
        vocabulary=vocabulary,
        window=4,
        heads=4,
        kv_heads=2,
        head_size=3,
    )


def heads(rank: int = 1, tokens: int = 3, seed: int = 0) -> DraftHeads:
    """Heads whose every parameter matters: none is at its initial zero."""
    result = first_heads(config(rank, tokens), torch.ones(WIDTH), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return result


def student(rank: int = 1, tokens: int = 3, seed: int = 0) -> Student:
    return Student(heads(rank, tokens, seed), TokenReader(STATES, 5, seed))


def fresh(rank: int = 1) -> Student:
    """One that has learnt nothing yet."""
    return Student(first_heads(config(rank), torch.ones(WIDTH), 0), TokenReader(STATES, 5, 0))


def head(seed: int = 0) -> torch.Tensor:
    """The whole unembedding [V, d] of the model that `frozen` is of."""
    return torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(seed))


def frozen(seed: int = 0) -> Frozen:
    """A model of which only the ends are there."""
    embedding, generator = head(seed), torch.Generator().manual_seed(seed + 1)
    vocabulary = torch.arange(0, VOCABULARY)[torch.randperm(VOCABULARY, generator=generator)[:17]].sort().values
    norm = RMSNorm(WIDTH, 1e-5)
    norm.requires_grad_(False)
    norm.weight.copy_(1 + 0.1 * torch.randn(WIDTH, generator=generator))
    states = torch.randn(VOCABULARY, STATES, generator=generator).half()
    return Frozen(states, embedding[vocabulary].clone(), norm, vocabulary)


def cache(model: Frozen, rows: int = 6, length: int = 150, seed: int = 0) -> FeatureCache:
    """Features of a model whose last hidden state is a function of the last two tokens, so that heads can learn."""
    generator = np.random.default_rng(seed)
    table = generator.standard_normal((VOCABULARY, VOCABULARY, 2 * WIDTH)).astype(np.float16)
    tokens = np.zeros((rows, length), np.int32)
    features = np.zeros((rows, length, 2 * WIDTH), np.float16)
    totals, greedy = np.zeros((rows, length), np.float32), np.zeros((rows, length), np.int32)
    for row in range(rows):
        last, token = 0, int(generator.integers(VOCABULARY))
        for place in range(length):
            tokens[row, place] = token
            features[row, place] = table[last, token]
            final = model.norm(torch.from_numpy(features[row, place, WIDTH:]).float())
            logits = final @ head(seed).T
            totals[row, place], greedy[row, place] = logits.logsumexp(-1), int(logits.argmax())
            last, token = token, int(logits.argmax()) if generator.random() < 0.8 else int(generator.integers(30))
    return FeatureCache(tokens, features, totals, greedy)
