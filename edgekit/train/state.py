"""The state of an unfinished run: one file, replaced as a whole, from which the run continues bit for bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import EdgekitError
from edgekit.files import atomic_file

STATE_FILE = "state.pt"


@dataclass
class History:
    """What is told about a run: per entry of `training` and `held_out` the step and the mean loss in nats per token.

    `recent` holds the losses of the single steps since the last entry of `training`: the next entry is their mean.
    """

    training: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class State:
    """Steps done, the weights' and the optimiser's state, the history, and a digest of what was to be computed."""

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: History
    identity: str


def identity_of(*parts: object) -> str:
    """A digest of everything that decides a run: recipe, configuration, tokens."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def save_state(directory: Path, state: State) -> None:
    """Replace the state file in one step, durably."""
    content = {
        "step": state.step,
        "model": state.model,
        "optimizer": state.optimizer,
        "training": state.history.training,
        "held_out": state.history.held_out,
        "recent": state.history.recent,
        "seconds": state.history.seconds,
        "identity": state.identity,
    }
    with atomic_file(directory / STATE_FILE) as file:
        torch.save(content, file)


def load_state(directory: Path, identity: str) -> State | None:
    """The state that was saved, or None. Raises EdgekitError for that of another run, or a damaged file."""
    path = directory / STATE_FILE
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
        history = History(
            [(int(step), float(loss)) for step, loss in content["training"]],
            [(int(step), float(loss)) for step, loss in content["held_out"]],
            [float(loss) for loss in content["recent"]],
            float(content["seconds"]),
        )
        state = State(content["step"], content["model"], content["optimizer"], history, content["identity"])
    except Exception as error:
        raise EdgekitError(
            "the state of a run must be readable",
            f"{path} is damaged ({type(error).__name__})",
            "delete it to train from the start",
        ) from error
    if state.identity != identity:
        raise EdgekitError(
            "a run is continued with the recipe and the text it was started with",
            f"{path} is of another recipe, text, attention or version",
            "take those, or another output directory",
        )
    return state
