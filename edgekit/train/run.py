"""A training run from the recipe to the finished checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit import __version__
from edgekit.errors import EdgekitError
from edgekit.files import atomic_write
from edgekit.models.registry import model_from_config
from edgekit.progress import Progress
from edgekit.train.corpus import Corpus, documents_of_file, documents_of_package, split
from edgekit.train.initial_weights import initialise
from edgekit.train.recipe import TrainingRecipe
from edgekit.train.state import STATE_FILE, identity_of, load_state
from edgekit.train.tokenizer import tokenizer_files, tokens_of, trained_tokenizer
from edgekit.train.trainer import Trainer
from edgekit.train.windows import Tokens
from edgekit.train.write import write_checkpoint
from edgekit.words import counted

HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class Prepared:
    """Text as token ids, and the files of the tokenizer that made them."""

    training: Tokens
    held_out: Tokens
    held_out_bytes: int
    vocab_size: int
    files: dict[str, bytes]


@dataclass(frozen=True)
class Trained:
    """What a run has come to.

    Attributes:
        finished: whether all steps were done; the checkpoint is written either way.
        held_out_loss: nats per token over all of the held-out text, after rounding to float16.
        bits_per_byte: the same in bits per byte of text, which does not depend on the tokenizer.
        cache_numbers_per_token: numbers the cache holds per token, all layers together.
    """

    finished: bool
    step: int
    steps: int
    parameters: int
    training_tokens: int
    held_out_tokens: int
    held_out_loss: float
    bits_per_byte: float
    cache_numbers_per_token: int
    weight_bytes: int
    seconds: float


def prepare(recipe: TrainingRecipe, data: Path | None, progress: Progress) -> Prepared:
    """Fetch or read the text, split it, and train the tokenizer on the training part."""
    progress.stage("reading the text")
    corpus = _corpus(recipe, data, progress)
    progress.stage("training the tokenizer")
    tokenizer = trained_tokenizer(corpus.training, recipe.tokenizer.vocab_size)
    training, held_out = tokens_of(tokenizer, corpus.training), tokens_of(tokenizer, corpus.held_out)
    size = tokenizer.get_vocab_size()
    progress.note(f"{len(training):,} tokens to train on, {len(held_out):,} held out, vocabulary {size}")
    held_out_bytes = sum(len(text.encode()) for text in corpus.held_out)
    files = tokenizer_files(tokenizer, int(recipe.model.get("max_position_embeddings", recipe.training.context)))
    return Prepared(training, held_out, held_out_bytes, size, files)


def _corpus(recipe: TrainingRecipe, data: Path | None, progress: Progress) -> Corpus:
    every = recipe.training.held_out_every
    if data is not None:
        return split(documents_of_file(data), every)
    if not recipe.packages:
        raise EdgekitError(
            "a run needs text", f"the recipe {recipe.name} lists no [[package]]", "add one, or give --data FILE"
        )
    parts = []
    for package in recipe.packages:
        parts.append(split(documents_of_package(package), every))
        progress.note(f"{package.name}: {len(parts[-1].training) + len(parts[-1].held_out)} documents")
    return Corpus([t for p in parts for t in p.training], [t for p in parts for t in p.held_out])


def train(
    recipe: TrainingRecipe,
    attention: str,
    directory: Path,
    *,
    data: Path | None,
    resume: bool,
    stop: Callable[[], bool],
    progress: Progress,
) -> Trained:
    """Train the recipe's model into `directory`, which then holds a checkpoint, the history and the run's state.

    Raises:
        RecipeError, ModelError: the recipe does not describe a model.
        EdgekitError: no text, a state of another run, or one that is there although `resume` is not set.
    """
    prepared = prepare(recipe, data, progress)
    config = recipe.config(attention, prepared.vocab_size)
    model = model_from_config(config, max_positions=recipe.training.context)
    identity = identity_of(recipe.tables(), config, __version__, _digest(prepared.training), _digest(prepared.held_out))
    directory.mkdir(parents=True, exist_ok=True)
    state = load_state(directory, identity) if resume else None
    if not resume and (directory / STATE_FILE).exists():
        raise EdgekitError(
            "a run must not overwrite another one",
            f"{directory} holds the state of a run",
            "continue it with --resume, delete it, or take another directory",
        )
    if state is None:
        initialise(model, recipe.training.seed)
        if resume:
            progress.note("there is no state to resume: starting at step 0")
    trainer = Trainer(model, prepared.training, prepared.held_out, recipe.training, identity, directory, state)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seconds = trainer.seconds_per_step()
    left = recipe.training.steps - trainer.step
    progress.note(
        f"{counted(parameters, 'parameters')}; {left} of {counted(recipe.training.steps, 'steps')} to do,"
        f" about {left * seconds / 60:.0f} min at {seconds:.1f} s each"
    )
    trainer.run(progress, stop)
    return _finish(trainer, prepared, config, directory, progress)


def _finish(
    trainer: Trainer, prepared: Prepared, config: dict[str, Any], directory: Path, progress: Progress
) -> Trained:
    progress.stage("evaluating")
    model = trainer.model
    with torch.no_grad():  # the state is saved: what is measured is what is written
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.float16))
    loss = trainer.held_out_loss()
    held_out_tokens = len(prepared.held_out) - 1
    weight_bytes = write_checkpoint(directory, model, config, prepared.files)
    result = Trained(
        finished=trainer.finished,
        step=trainer.step,
        steps=trainer.table.steps,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_tokens=len(prepared.training),
        held_out_tokens=held_out_tokens,
        held_out_loss=loss,
        bits_per_byte=loss * held_out_tokens / prepared.held_out_bytes / np.log(2).item(),
        cache_numbers_per_token=sum(tensor.numbers for cache in model.cache_layout() for tensor in cache),
        weight_bytes=weight_bytes,
        seconds=trainer.history.seconds,
    )
    history = {
        "attention": config["model_type"],
        "tokens_per_step": trainer.table.batch * trainer.table.context,
        "training": trainer.history.training,
        "held_out": [*trainer.history.held_out, (trainer.step, loss)],
        "result": vars(result),
    }
    atomic_write(directory / HISTORY_FILE, json.dumps(history, indent=1) + "\n")
    return result


def _digest(tokens: Tokens) -> str:
    return identity_of(tokens.tobytes().hex())
