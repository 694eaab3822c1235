"""Multiple-choice questions: the scores, what is read, and that a real graph answers as PyTorch does."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.bundle import Bundle
from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.checkpoint import Checkpoint
from edgekit.errors import EdgekitError, SessionError
from edgekit.evaluate.choice_task import ChoiceTask, EncodedQuestion, Question, encoded, read_questions
from edgekit.evaluate.choices import difference, judged, log_likelihoods, measure_choices
from edgekit.evaluate.of_bundle import choices_of_bundle
from edgekit.evaluate.progress_file import RowFile
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.reference_choices import choices_of_checkpoint, tokenizer_from_checkpoint
from tests.chat.tiny_tokenizers import byte_fallback, byte_level
from tests.runtime.fake_sessions import HashSession

QUESTIONS = (
    Question("Why is the lamp lit?", ("hello world", "it is dark, and someone reads", "no"), 1),
    Question("Who came?", ("the boat", "the boats"), 0),
    Question("Zürich?", ("Ja", "naïve café", "x", "hello"), 3),
)
TASK = ChoiceTask("task.jsonl", "0" * 64, QUESTIONS)


def written(folder: Path, *rows: object) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_scored_is_the_choice_and_all_of_it(question: Question, make: object) -> None:
    tokenizer = ChatTokenizer(make().to_str())  # type: ignore[operator]
    made = encoded(question, tokenizer)
    for choice, rest, scored in zip(question.choices, made.rests, made.scored, strict=True):
        whole = f"Question: {question.question}\nAnswer: {choice}"
        assert [*made.context, *rest] == tokenizer.encode(whole)
        assert tokenizer.decode(rest[-scored:]).strip() == choice
        assert len(rest) >= scored >= 1


def test_a_choice_that_merges_with_its_prompt_is_scored_from_where_the_tokens_part() -> None:
    from tokenizers import Tokenizer, models

    tokens = {token: index for index, token in enumerate([*"Question: aAnswer\nxy", ": ", "r: "])}
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[(":", " "), ("r", ": ")]))
    made = encoded(Question("a", ("x", "y"), 0), ChatTokenizer(tokenizer.to_str()))
    assert [vocab["r: "], vocab["x"]] == list(made.rests[0])
    assert made.scored == (2, 2)


@pytest.mark.parametrize("length", [1, 5, 130, 300])
def test_log_likelihoods_are_those_of_each_token_after_all_before_it(length: int) -> None:
    rng = np.random.default_rng(3)
    context = tuple(rng.integers(0, 50, length).tolist())
    rests = ((4,), (7, 8, 9), (1, 2, 3, 4, 5))
    question = EncodedQuestion(context, rests, (1, 3, 2))
    found = log_likelihoods(HashSession(capacity=400), question)
    plain = HashSession(capacity=400)
    for rest, scored, value in zip(rests, question.scored, found, strict=True):
        expected = 0.0
        for place in range(len(rest) - scored, len(rest)):
            plain.cache = [*context, *rest[:place]]
            row = plain.row().astype(np.float64)
            expected += row[rest[place]] - math.log(np.exp(row).sum())
        assert value == pytest.approx(expected, rel=1e-5)


def test_accuracy_error_and_chance_are_those_of_the_definitions() -> None:
    """Right by sum: the second and third; by character: the first and third."""
    questions = [
        Question("q", ("a", "abcdefghij"), 1),
        Question("q", ("ab", "cd"), 0),
        Question("q", ("a", "b", "c"), 2),
    ]
    scores = [[-2.0, -3.0], [-1.0, -2.0], [-3.0, -4.0, -1.0]]
    found = judged(questions, scores)
    assert found.right == ((False, True), (True, True), (True, True))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.accuracy_error == pytest.approx(statistics.stdev([0, 1, 1]) / math.sqrt(3))
    assert found.normalised == 1
    assert found.chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    other = judged(questions, [[-3.0, -2.0], [-1.0, -2.0], [-3.0, -4.0, -5.0]])
    change = difference(found, other)
    assert change["accuracy"] == pytest.approx(0)
    assert change["accuracy_error"] == pytest.approx(statistics.stdev([-1, 0, 1]) / math.sqrt(3))
    assert judged(questions[:1], scores[:1]).accuracy_error is None


def test_a_bundle_answers_as_pytorch_does(bundle: Bundle, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Against the plain model: every choice with its prompt, as a whole."""
    ours = choices_of_bundle(bundle, TASK, threads=1)
    theirs = choices_of_checkpoint(checkpoint, TASK)
    assert ours.right == theirs.right
    files = {path.name: json.loads(path.read_text())["rows"] for path in (tmp_path / "cache" / "eval").glob("*.json")}
    assert len(files) == 2
    one, other = files.values()
    assert np.concatenate(one) == pytest.approx(np.concatenate(other), abs=1e-3)
    model, tokenizer = model_from_checkpoint(checkpoint), tokenizer_from_checkpoint(checkpoint)
    for question, values in zip(QUESTIONS, one, strict=True):
        start = len(tokenizer.encode(f"Question: {question.question}\nAnswer:"))
        for choice, value in zip(question.choices, values, strict=True):
            ids = torch.tensor([tokenizer.encode(f"Question: {question.question}\nAnswer: {choice}")])
            with torch.inference_mode():
                output = model(ids, torch.ones_like(ids), model.empty_cache(1), torch.tensor([0]))
            scores = torch.log_softmax(output.logits[0].double(), -1)
            expected = sum(float(scores[place - 1, ids[0, place]]) for place in range(start, ids.shape[1]))
            assert value == pytest.approx(expected, abs=1e-3)


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    questions = [encoded(question, ChatTokenizer(byte_level().to_str())) for question in QUESTIONS]
    sessions: list[HashSession] = []

    def opened() -> HashSession:
        sessions.append(HashSession(vocab=400, capacity=400))
        return sessions[-1]

    def run(limit: int | None) -> tuple[tuple[bool, bool], ...]:
        file = RowFile({"of": "this"}, tmp_path)
        file.load()
        return measure_choices(opened, TASK, questions, file=file, limit=limit).right

    assert len(run(2)) == 2
    whole = run(None)
    assert len(whole) == 3
    asked = {tuple(call) for call in sessions[1].calls}
    assert questions[0].context not in asked
    assert questions[2].context in asked
    assert run(None) == whole
    assert len(sessions) == 2
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text()[:-9])
    with pytest.raises(EdgekitError, match="--restart"):
        run(None)


def test_a_question_that_does_not_fit() -> None:
    questions = [encoded(question, ChatTokenizer(byte_level().to_str())) for question in QUESTIONS]
    with pytest.raises(EdgekitError, match="fake holds 20"):
        measure_choices(lambda: HashSession(capacity=20), TASK, questions, file=RowFile({}))


def test_logits_that_are_no_numbers_are_no_answer() -> None:
    class Broken(HashSession):
        def row(self) -> np.ndarray:
            return np.full(self.vocab, np.nan, np.float32)

    with pytest.raises(SessionError, match="finite"):
        log_likelihoods(Broken(), EncodedQuestion((1, 2), ((3,), (4, 5)), (1, 2)))


def test_an_answer_is_an_index_or_the_choice(tmp_path: Path) -> None:
    rows = [{"question": " q ", "choices": ["a", "b "], "answer": answer} for answer in (1, "b ")]
    task = read_questions(written(tmp_path, rows[0], "", rows[1]))
    assert task.questions == (Question("q", ("a", "b"), 1),) * 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 2"),
        ([], "no object"),
        ({"choices": ["a", "b"], "answer": 0}, '"question"'),
        ({"question": " ", "choices": ["a", "b"], "answer": 0}, '"question"'),
        ({"question": "q", "choices": ["a"], "answer": 0}, "at least two"),
        ({"question": "q", "choices": "ab", "answer": 0}, "at least two"),
        ({"question": "q", "choices": ["a", ""], "answer": 0}, "no text"),
        ({"question": "q", "choices": ["a", "a"], "answer": 0}, "the same"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "from 0 to 1"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "from 0 to 1"),
        ({"question": "q", "choices": ["a", "b"], "answer": "c"}, "none of its choices"),
        ({"question": "q", "choices": ["a", "b"]}, "from 0 to 1"),
    ],
)
def test_rows_that_are_no_questions(row: object, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "q", "choices": ["a", "b"], "answer": 0}, row)
    with pytest.raises(EdgekitError) as raised:
        read_questions(path)
    assert "line 2" in raised.value.fact
    assert words in raised.value.fact


def test_files_without_questions(tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="it holds none"):
        read_questions(written(tmp_path, ""))
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(EdgekitError, match="UTF-8"):
        read_questions(tmp_path / "latin")
