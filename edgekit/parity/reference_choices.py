"""Multiple-choice questions for the original model in PyTorch, asked once and kept."""

from __future__ import annotations

from edgekit.chat.tokenizer import ChatTokenizer
from edgekit.checkpoint import Checkpoint
from edgekit.checkpoint.special_tokens import special_token_ids
from edgekit.evaluate.choice_task import ChoiceTask, encoded, longest
from edgekit.evaluate.choices import ChoiceResult, measure_choices
from edgekit.evaluate.of_bundle import choices_key
from edgekit.evaluate.progress_file import RowFile
from edgekit.models.registry import model_from_checkpoint
from edgekit.parity.reference_perplexity import checkpoint_key
from edgekit.parity.torch_session import TorchSession
from edgekit.progress import Progress


def tokenizer_from_checkpoint(checkpoint: Checkpoint) -> ChatTokenizer:
    """The checkpoint's tokenizer, with the same first token as a bundle of it has.

    Raises:
        CheckpointError: it has none.
        BundleError: its tokenizer.json is none.
    """
    files = checkpoint.tokenizer_files()
    tokens = special_token_ids(checkpoint, files)
    return ChatTokenizer(
        files["tokenizer.json"].decode(),
        bos=tokens["bos"] if tokens["add_bos"] else None,
        eos=tokens["eos"],
        origin=f"tokenizer.json of {checkpoint.path}",
    )


def choices_of_checkpoint(
    checkpoint: Checkpoint,
    task: ChoiceTask,
    *,
    limit: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> ChoiceResult:
    """Ask the questions, or the first `limit` of them, in float32.

    Answers of an earlier run with the same files are taken over.

    Raises:
        ModelError: the checkpoint's model cannot be built.
        CheckpointError: it has no tokenizer.
    """
    tokenizer = tokenizer_from_checkpoint(checkpoint)
    questions = [encoded(question, tokenizer) for question in task.questions]
    file = RowFile(choices_key(checkpoint_key(checkpoint), questions))
    if resume:
        file.load()

    def opened() -> TorchSession:
        return TorchSession(model_from_checkpoint(checkpoint, max_positions=longest(questions)))

    return measure_choices(opened, task, questions, file=file, limit=limit, progress=progress)
