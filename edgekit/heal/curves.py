"""The course of a healing: a file of what was measured, and a picture of it, both beside the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.files import atomic_write
from edgekit.plotting import blank, save


def history_file(destination: Path) -> Path:
    """Where the course of a destination is kept."""
    return destination.with_name(f"{destination.name}.history.json")


def curve_file(destination: Path) -> Path:
    """Where its picture goes."""
    return destination.with_name(f"{destination.name}.png")


def entries_of(log: Path) -> dict[str, list[dict[str, Any]]]:
    """ "steps" and "layers" of a log of JSON lines, each once, in order.

    A run that was cut off is resumed from its last save: what it had logged beyond that comes again, and its last line
    may be torn.
    """
    steps: dict[int, dict[str, Any]] = {}
    layers: dict[int, dict[str, Any]] = {}
    for line in log.read_text("utf-8").splitlines() if log.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "step" in entry:
            steps[entry["step"]] = entry
        elif "layer" in entry:
            layers[entry["layer"]] = entry
    return {"steps": [steps[k] for k in sorted(steps)], "layers": [layers[k] for k in sorted(layers)]}


def keep_history(destination: Path, log: Path, held_out: dict[str, Any] | None = None) -> None:
    """Write the file of a destination from a run's log."""
    atomic_write(history_file(destination), json.dumps({**entries_of(log), "held_out": held_out}))


def draw(destination: Path) -> Path:
    """Draw the history of a destination; the picture's place.

    Raises:
        EdgekitError: matplotlib is missing, or there is no history.
    """
    steps, layers, held_out = _history(history_file(destination))
    figure = blank(9, 4)
    parts = figure.subplots(1, 2)
    if steps:
        places = [entry["step"] for entry in steps]
        loss = [entry["loss"] if "loss" in entry else entry["nats"] for entry in steps]
        parts[0].plot(places, loss, linewidth=0.6, label="training")
        parts[1].plot(places, [entry["hidden"] for entry in steps], linewidth=0.6, color="C1", label="training")
        if held_out is not None:
            ends = [places[0], places[-1]]
            parts[0].plot(ends, [held_out["before"], held_out["after"]], "o", color="C3", label="passages held out")
        for axes, what in zip(parts, ("loss", "relative error² of hidden states (mean)"), strict=True):
            axes.set_ylabel(what)
            axes.set_xlabel("step of distillation")
    elif layers:
        places = [entry["layer"] for entry in layers]
        for axes in parts:
            axes.plot(places, [entry["before"] for entry in layers], "o-", markersize=3, label="before")
            axes.plot(places, [entry["after"] for entry in layers], "o-", markersize=3, label="after the fit")
            axes.set_ylabel("error² of the attention's output")
            axes.set_xlabel("layer")
        parts[1].set_yscale("log")
    for axes in parts:
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    target = curve_file(destination)
    save(figure, target)
    return target


def _history(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any] | None]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return content["steps"], content["layers"], content["held_out"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgekitError("the course of a healing must be readable", f"{path}: {error}", "heal again") from None
