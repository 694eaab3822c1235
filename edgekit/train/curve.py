"""The loss curves of finished runs as a PNG: python -m edgekit.train.curve PNG RUN [RUN ...]."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.train.run import HISTORY_FILE

#: A run's name in the legend by the model_type of what it trained.
_NAMES = {"t6": "T6 (tensor product attention)", "llama": "GQA twin"}


def draw_curves(target: Path, runs: list[Path]) -> None:
    """Draw training (thin) and held-out loss (thick) of runs over the tokens they have seen.

    Raises EdgekitError without matplotlib or a run's history.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise EdgekitError(
            "loss curves are drawn with matplotlib", "it is not installed here", "pip install matplotlib"
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for run, colour in zip(runs, ("C0", "C1", "C2", "C3"), strict=False):
        history = _history(run)
        name = _NAMES.get(history["attention"], history["attention"])
        scale = history["tokens_per_step"] / 1e6
        for key, width, style in (("training", 0.8, "-"), ("held_out", 1.8, "o-")):
            steps, losses = zip(*history[key], strict=True)
            tokens = [step * scale for step in steps]
            label = f"{name}, {'held out' if key == 'held_out' else 'training'}"
            axes.plot(tokens, losses, style, color=colour, linewidth=width, markersize=3, label=label)
    axes.set_xlabel("tokens seen (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    # No date and no version in the file: the same runs give the same bytes.
    figure.savefig(target, dpi=110, metadata={"Software": None})


def _history(run: Path) -> dict[str, Any]:
    path = run / HISTORY_FILE if run.is_dir() else run
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return {name: content[name] for name in ("attention", "tokens_per_step", "training", "held_out")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgekitError(
            "a run must have its history", f"{path}: {error}", "give the output directory of `edgekit train`"
        ) from None


if __name__ == "__main__":
    draw_curves(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
