"""The course of a training as a PNG: loss, and the acceptance of each drafted token on held-out text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.plotting import blank, save

_TITLES = {"single": "single heads", "mixture": "mixture"}


def draw(history: Path, target: Path) -> None:
    """Draw the history that a training wrote.

    Raises:
        EdgekitError: matplotlib is missing, or the file holds no history.
    """
    stages, figure = _stages(history), blank(9, 4)
    loss, accepted = figure.subplots(1, 2)
    start = 0
    for index, (name, course) in enumerate(stages.items()):
        steps, losses = zip(*course["losses"], strict=True)
        loss.plot([start + s for s in steps], losses, linewidth=0.6, color=f"C{index}", label=_TITLES.get(name, name))
        at = [start + entry["step"] for entry in course["measured"]]
        for place, rates in enumerate(zip(*(entry["greedy"] for entry in course["measured"]), strict=True)):
            label = f"token {place + 1}" if index == 0 else None
            accepted.plot(at, rates, "o-", markersize=2, color=f"C{place}", label=label)
        start += steps[-1] + 1
        for axes in (loss, accepted):
            axes.axvline(start, color="0.8", linewidth=0.8)
    loss.set_ylabel("training loss (weighted nats per position)")
    accepted.set_ylabel("acceptance (greedy, held out)")
    accepted.set_ylim(0, 1)
    for axes in (loss, accepted):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save(figure, target)


def _stages(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return {name: {key: course[key] for key in ("losses", "measured")} for name, course in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgekitError(
            "the course of a training must be readable", f"{path}: {error}", "train again: edgekit draft train"
        ) from None
