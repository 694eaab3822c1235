"""The training loop: AdamW, cosine schedule, clipped gradients; it stops between steps and continues bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import EdgekitError
from edgekit.layers.decoder import Decoder
from edgekit.progress import Progress
from edgekit.train.dense_forward import dense_loss
from edgekit.train.recipe import TrainingTable
from edgekit.train.state import History, State, save_state
from edgekit.train.windows import Tokens, Windows, consecutive_windows

#: How many steps are averaged into one entry of the history.
AVERAGED = 25
_BETAS = (0.9, 0.95)


class Trainer:
    """One run over given tokens.

    Args:
        model: a decoder whose attention `dense_loss` supports; its weights are trained in place, in float32.
        identity: what the run computes, see `edgekit.train.state.identity_of`.
        directory: where the state is saved.
        state: where to continue; None to start with the model's weights as they are.
    """

    def __init__(
        self,
        model: Decoder,
        training: Tokens,
        held_out: Tokens,
        table: TrainingTable,
        identity: str,
        directory: Path,
        state: State | None = None,
    ) -> None:
        self.model, self.table, self.identity, self.directory = model, table, identity, directory
        self.windows = Windows(training, table.context, table.batch, table.seed)
        for part, count, needed in (
            ("training", self.windows.steps_per_epoch, table.context * (table.batch + 1) + 1),
            ("held-out", (len(held_out) - 1) // table.context, table.context + 1),
        ):
            if count < 1:
                raise EdgekitError(
                    f"the {part} text must have at least {needed} tokens",
                    f"it has {len(training if part == 'training' else held_out)}",
                    "give more text, or set context or batch lower",
                )
        self.held_out = held_out
        model.requires_grad_(True).train()
        self.optimizer = _optimizer(model, table)
        self.step, self.history = 0, History()
        if state is not None:
            model.load_state_dict(state.model)
            self.optimizer.load_state_dict(state.optimizer)
            self.step, self.history = state.step, state.history

    @property
    def finished(self) -> bool:
        return self.step >= self.table.steps

    def seconds_per_step(self) -> float:
        """Measured on the next windows without changing weights: the estimate before a run."""
        windows = torch.from_numpy(self.windows.step(self.step))
        times = []
        for _ in range(2):  # the first one also allocates
            started = time.monotonic()
            with self._precision():
                dense_loss(self.model, windows).backward()  # type: ignore[no-untyped-call]
            times.append(time.monotonic() - started)
        self.optimizer.zero_grad()
        return times[-1]

    def run(self, progress: Progress, stop: Callable[[], bool]) -> None:
        """Train until the last step, or until `stop` says so between two steps; the state is saved either way."""
        table, started = self.table, time.monotonic() - self.history.seconds
        progress.stage("training", table.steps - self.step, "steps")
        while not self.finished and not stop():
            self.history.recent.append(self._one_step())
            self.history.seconds = time.monotonic() - started
            if self.step % AVERAGED == 0 or self.finished:
                mean = sum(self.history.recent) / len(self.history.recent)
                self.history.training.append((self.step, mean))
                self.history.recent = []
            if self.step % table.evaluate_every == 0 and not self.finished:
                loss = self.held_out_loss(table.evaluate_windows)
                self.history.held_out.append((self.step, loss))
                progress.note(self._told(loss))
            progress.advance()
            if self.step % table.save_every == 0:
                self.save()
        self.save()

    def _told(self, held_out: float) -> str:
        left = self.history.seconds / self.step * (self.table.steps - self.step) / 60
        loss = self.history.training[-1][1] if self.history.training else math.nan
        return f"step {self.step}: training {loss:.3f}, held out {held_out:.3f}; about {left:.0f} min left"

    def _one_step(self) -> float:
        rate = learning_rate(self.table, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        windows = torch.from_numpy(self.windows.step(self.step))
        with self._precision():
            loss = dense_loss(self.model, windows)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.table.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise EdgekitError(
                "the loss must stay finite", f"it is {value} at step {self.step}", "set the learning rate lower"
            )
        return value

    def held_out_loss(self, count: int | None = None) -> float:
        """Mean loss in nats per token over `count` windows of the held-out text, or all of it; always in float32."""
        windows = torch.from_numpy(consecutive_windows(self.held_out, self.table.context, count))
        with torch.no_grad():
            losses = [
                float(dense_loss(self.model, part)) * len(part) for part in torch.split(windows, self.table.batch)
            ]
        return sum(losses) / len(windows)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.table.compute == "bfloat16"):
            yield

    def save(self) -> None:
        """Write the state."""
        state = State(self.step, self.model.state_dict(), self.optimizer.state_dict(), self.history, self.identity)
        save_state(self.directory, state)


def learning_rate(table: TrainingTable, step: int) -> float:
    """The rate of a step counted from 0: linear warm-up, then a cosine to final_rate of the peak."""
    if step < table.warmup_steps:
        return table.learning_rate * (step + 1) / table.warmup_steps
    done = (step - table.warmup_steps) / max(1, table.steps - table.warmup_steps)
    share = table.final_rate + (1 - table.final_rate) * (1 + math.cos(math.pi * done)) / 2
    return table.learning_rate * share


def _optimizer(model: Decoder, table: TrainingTable) -> torch.optim.AdamW:
    # Vectors (norms) are not pulled towards 0.
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": table.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=table.learning_rate, betas=_BETAS, fused=True)
