"""Several texts at once with drafts of their own: each as if it were alone, in every attention type's cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgekit.errors import PromptError, SessionError
from edgekit.runtime.drafting.batch import generate_batch
from edgekit.runtime.drafting.interface import Drafter
from edgekit.runtime.drafting.ngram import NGramDrafter
from edgekit.runtime.generate import generate
from edgekit.runtime.options import Finished, GenerationOptions
from edgekit.runtime.sampling import SamplingOptions
from tests.runtime.drafting.fake_drafters import FakeDrafter, known, moody, wrong
from tests.runtime.subjects import FakeTrtSubject, OrtSubject, Subject
from tests.runtime.test_generate import Numbers

NEW = 18


def alone(session: Any, prompt: Sequence[int], **options: Any) -> list[int]:
    *_, end = generate(session, Numbers(), prompt, GenerationOptions(**{"max_new_tokens": NEW, **options}))
    assert isinstance(end, Finished)
    return list(end.tokens)


def prompts_of(subject: Subject) -> list[list[int]]:
    tokens: list[list[int]] = subject.tokens[0, :75].reshape(3, 25).tolist()
    return tokens


@pytest.fixture
def tiny(tiny_graphs: Any) -> Subject:
    return OrtSubject(tiny_graphs, "concat")


def test_each_row_is_what_it_is_alone(subject: Subject, session: Any) -> None:
    """One drafter always right, one always wrong, one either: three speeds, one cache."""
    if type(subject) in (OrtSubject, FakeTrtSubject) and subject.kind == "shared":
        pytest.skip("GroupQueryAttention of ONNX Runtime takes blocks of one text: see the next test")
    prompts = prompts_of(subject)
    texts = [alone(session, prompt) for prompt in prompts]
    sayings = [known(texts[0], 25), wrong(texts[1], 25, subject.vocab), moody(texts[2], 25, 3, subject.vocab)]
    found = generate_batch(
        session, [FakeDrafter(say) for say in sayings], prompts, max_new_tokens=NEW, draft_tokens=3
    )  # fmt: skip
    assert found.texts == texts
    assert found.steps == NEW - 1, "as many as the slowest needs"


def test_attention_that_takes_blocks_of_one_text_is_refused(tiny_graphs: Any) -> None:
    subject = OrtSubject(tiny_graphs, "shared")
    session = subject.open()
    drafters = [FakeDrafter(lambda tokens, count: [1] * count) for _ in range(3)]
    with pytest.raises(SessionError) as caught:
        generate_batch(session, drafters, prompts_of(subject), max_new_tokens=NEW, draft_tokens=3)
    assert "3 texts, and 4 tokens of each follow 25" in caught.value.fact
    assert "portable" in caught.value.next_step
    assert len(generate_batch(session, [], prompts_of(subject), max_new_tokens=4, draft_tokens=3).texts) == 3


def test_right_drafts_save_steps(tiny: Subject) -> None:
    session = tiny.open()
    prompts = prompts_of(tiny)
    texts = [alone(session, prompt) for prompt in prompts]
    drafters = [FakeDrafter(known(text, 25)) for text in texts]
    found = generate_batch(session, drafters, prompts, max_new_tokens=NEW, draft_tokens=3)
    assert found.texts == texts
    assert found.steps == -(-(NEW - 1) // 4)
    assert generate_batch(session, [], prompts, max_new_tokens=NEW, draft_tokens=3).texts == texts


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_of_luck(tiny: Subject, seed: int) -> None:
    session = tiny.open()
    prompts = prompts_of(tiny)
    texts = [alone(session, prompt) for prompt in prompts]
    drafters = [FakeDrafter(moody(text, 25, 10 * seed + i, tiny.vocab), longest=5) for i, text in enumerate(texts)]
    found = generate_batch(session, drafters, prompts, max_new_tokens=NEW, draft_tokens=5)
    assert found.texts == texts


def test_rows_end_where_they_end_alone(tiny: Subject) -> None:
    session = tiny.open()
    prompts = prompts_of(tiny)
    texts = [alone(session, prompt) for prompt in prompts]
    stop = frozenset([texts[0][4], texts[1][9]])
    wanted = [alone(session, prompt, stop_tokens=stop) for prompt in prompts]
    assert len({len(text) for text in wanted}) > 1
    drafters = [FakeDrafter(known(text, 25)) for text in texts]
    found = generate_batch(session, drafters, prompts, max_new_tokens=NEW, draft_tokens=4, stop_tokens=stop)
    assert found.texts == wanted


def test_seeds_give_each_row_its_text(tiny: Subject) -> None:
    session = tiny.open()
    prompts = prompts_of(tiny)
    texts = [
        alone(session, prompt, sampling=SamplingOptions(temperature=1.5, seed=7 + i))
        for i, prompt in enumerate(prompts)
    ]
    moods = [FakeDrafter(moody(text, 25, i, tiny.vocab)) for i, text in enumerate(texts[1:])]
    drafters: list[Drafter] = [NGramDrafter(), *moods]
    sampling = SamplingOptions(temperature=1.5, seed=7)
    found = generate_batch(session, drafters, prompts, max_new_tokens=NEW, draft_tokens=4, sampling=sampling)
    assert found.texts == texts


def test_the_context_may_be_filled_to_the_last_token(tiny: Subject) -> None:
    session = tiny.open(capacity=25 + NEW - 1)
    prompts = prompts_of(tiny)
    texts = [alone(session, prompt) for prompt in prompts]
    drafters = [FakeDrafter(known([*text, *range(9)], 25)) for text in texts]
    found = generate_batch(session, drafters, prompts, max_new_tokens=NEW, draft_tokens=4)
    assert found.texts == texts


def test_features_are_each_rows_own(tiny_graphs: Any, tmp_path: Any) -> None:
    from tests.runtime.tiny_decoder import write_tiny_decoder

    graph = write_tiny_decoder(tmp_path / "features.onnx", "concat", features=True)
    subject = OrtSubject({**tiny_graphs, "concat": graph}, "concat")
    session = subject.open()
    prompts = prompts_of(subject)
    texts = [alone(session, prompt) for prompt in prompts]
    drafters = [FakeDrafter(moody(text, 25, i, subject.vocab)) for i, text in enumerate(texts)]
    assert generate_batch(session, drafters, prompts, max_new_tokens=NEW, draft_tokens=4).texts == texts
    for drafter, prompt, text in zip(drafters, prompts, texts, strict=True):
        session.reset()
        session.forward(np.array([[*prompt, *text]]), keep=0)
        assert len(drafter.asked) > 2
        for (length, _), features in zip(drafter.asked, drafter.features, strict=True):
            # The last of `length` tokens was chosen at the position of the one before.
            known = session.features[0, length - 1 - len(features) : length - 1]
            np.testing.assert_allclose(features, known, atol=1e-3)
        assert max(len(features) for features in drafter.features) > 5


@pytest.mark.parametrize(
    ("prompts", "fact"),
    [([[1, 2], [1]], "1, 2"), ([[], []], "0"), ([], "none"), ([[1] * 20], "37 tokens, it holds 30")],
)
def test_prompts_that_cannot_go_together(tiny: Subject, prompts: list[list[int]], fact: str) -> None:
    session = tiny.open(capacity=30)
    with pytest.raises(PromptError) as caught:
        generate_batch(session, [], prompts, max_new_tokens=NEW, draft_tokens=2)
    assert fact in caught.value.fact
