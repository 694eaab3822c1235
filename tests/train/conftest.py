"""A recipe and a text small enough to train on in a second."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

RECIPE = """
schema = 1
[model]
hidden_size = 24
num_hidden_layers = 2
num_attention_heads = 3
head_dim = 8
query_rank = 2
key_rank = 1
value_rank = 1
intermediate_size = 64
max_position_embeddings = 64
rms_norm_eps = 1.1920929e-07
[gqa]
num_attention_heads = 3
num_key_value_heads = 1
head_dim = 8
[tokenizer]
vocab_size = 300
[training]
context = 16
batch = 4
steps = 200
warmup_steps = 5
learning_rate = 0.02
held_out_every = 10
evaluate_every = 80
evaluate_windows = 8
save_every = 7
"""


def text() -> str:
    """Paragraphs of sentences over twelve words in three roles: much to learn in few steps."""
    chance = random.Random(0)
    roles = (["ships", "whales", "sailors", "waves"], ["follow", "meet", "carry"], ["the moon", "a storm", "old maps"])
    paragraphs = []
    for _ in range(80):
        sentences = [" ".join(chance.choice(role) for role in roles) + "." for _ in range(chance.randint(2, 6))]
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs) + "\n"


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text())
    return path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums split among threads are added in another order; one run must equal the next bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
