"""SmolLM2-135M-Instruct on its real weights, against transformers with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.models import registry

pytestmark = pytest.mark.model

TOLERANCE = 1e-4
TEXT = (
    "The lighthouse keeper climbed the stairs every evening to light the lamp. From the gallery he could see the "
    "fishing boats returning to the harbour, and he counted them one by one until the last was safely home."
)
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France, and what is it known for?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module", autouse=True)
def _all_threads(_one_thread: None) -> Iterator[None]:
    """These matrices are worth more than one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint("smollm2-135m")


@pytest.fixture(scope="module")
def ours(checkpoint: Checkpoint) -> Any:
    return registry.model_from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def theirs(checkpoint: Checkpoint) -> Any:
    config = transformers.LlamaConfig(**checkpoint.config, attn_implementation="eager")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    state = {name: torch.from_numpy(checkpoint.array(name).copy()) for name in checkpoint.names()}
    # The published file stores the tied head a second time or not at all.
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Checkpoint) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(checkpoint.tokenizer_files()["tokenizer.json"].decode())


@pytest.fixture(scope="module")
def encode(tokenizer: tokenizers.Tokenizer) -> Any:
    return lambda text: torch.tensor([tokenizer.encode(text).ids])


def test_logits_equal_transformers(ours: Any, theirs: Any, encode: Any, tools: Any) -> None:
    for text in (TEXT, CHAT):
        ids = encode(text)
        with torch.no_grad():
            expected = theirs(ids).logits
        torch.testing.assert_close(tools.run(ours, ids).logits, expected, rtol=0, atol=TOLERANCE)


def test_greedy_64_tokens_equal_transformers(
    ours: Any, theirs: Any, tokenizer: tokenizers.Tokenizer, encode: Any, tools: Any
) -> None:
    ids = encode(CHAT)
    with torch.no_grad():
        expected = theirs.generate(ids, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=2)
    answer = tools.greedy(ours, ids, 64)
    assert answer == expected[0, ids.shape[1] :].tolist()
    # Errors of reading that both models would share, such as rows in the wrong order, leave no sense in the answer.
    assert "Paris" in tokenizer.decode(answer)


def test_cached_decoding_equals_the_full_forward(ours: Any, encode: Any, tools: Any) -> None:
    ids = encode(CHAT + TEXT)
    whole = tools.run(ours, ids)
    past, logits = None, []
    for piece in ids.split([ids.shape[1] - 12, 7, 1, 1, 1, 1, 1], 1):
        output = tools.run(ours, piece, past=past)
        past = output.present
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole.logits, rtol=0, atol=TOLERANCE)


def test_left_padded_batch_equals_each_alone(ours: Any, encode: Any, tools: Any) -> None:
    long, short = encode(CHAT), encode("Once upon a time")
    padding = long.shape[1] - short.shape[1]
    ids = torch.cat((long, torch.nn.functional.pad(short, (padding, 0), value=2)))
    mask = torch.ones_like(ids)
    mask[1, :padding] = 0
    logits = tools.run(ours, ids, mask).logits
    torch.testing.assert_close(logits[0], tools.run(ours, long).logits[0], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(logits[1, padding:], tools.run(ours, short).logits[0], rtol=0, atol=TOLERANCE)
