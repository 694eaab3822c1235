"""Whether the bundle computes what PyTorch computes, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from edgekit.report.blocks import Block, Cell, Facts, Figure, Heading, Note, Section, State, Table, Text, Tile
from edgekit.report.numbers import bound, percent, plain
from edgekit.report.shape import NUMBER
from edgekit.report.source import Source
from edgekit.report.svg import Lines, Point, Series, Strips
from edgekit.words import counted

ORDER = 10
TITLE, LABEL = "Parity with PyTorch", "Parity"
INTRO = "The same tokens through PyTorch in float32 and through this bundle, compared after each layer."
#: The ways to run a graph whose activations are not rounded to 8 bits.
EXACT_MODES = ("prefill", "chunked", "decode")
_TOLERANCE = {"cosine": float, "relative_error": float, "max_abs_error": NUMBER}
_DIFFERENCE = {"cosine": NUMBER, "max_abs_error": NUMBER, "relative_error": NUMBER}
SHAPE = {
    "passed": bool,
    "failure": (str, None),
    "checkpoint": str,
    "activations": str,
    "reference": str,
    "prompts": int,
    "model": {
        "positions": int,
        "kl_mean": NUMBER,
        "kl_max": NUMBER,
        "top1": NUMBER,
        "greedy_tokens": int,
        "greedy_prefixes": [int],
        "tolerance": {"kl_mean": float, "top1": float},
        "passed": bool,
    },
    "stages": [{"mode": str, "name": str, **_DIFFERENCE, "tolerance": _TOLERANCE, "passed": bool}],
    "weights": [{"name": str, "bits": int, "relative_error": NUMBER, "worst_row": NUMBER, "passed": bool}],
}
Stage = dict[str, Any]


def section(source: Source) -> Section:
    """The verdict, errors after each layer, ways to run the graph, weights, and choices."""
    found = source.document("parity", SHAPE)
    if found is None:
        note = source.missing("Whether this bundle computes what PyTorch computes", "parity")
        tile = Tile("Parity", "not measured", "edgekit parity", "quiet")
        return Section("parity", TITLE, (note,), INTRO, "missing", (tile,), label=LABEL)
    current = source.state("parity") == "ok"
    blocks: list[Block] = [*source.stale("parity"), _verdict(found, current), _facts(found, source)]
    stages = found["stages"]
    blocks += [*_layer_figure(stages), _mode_table(stages), Heading("Choices beside the original model's")]
    blocks += [_choices(found["model"]), *_weights(found["weights"]), *_layer_table(stages)]
    state: State = ("ok" if found["passed"] else "failed") if current else "stale"
    return Section("parity", TITLE, tuple(blocks), INTRO, state, (_tile(found, current),), source.data("parity"), LABEL)


def _tile(found: dict[str, Any], current: bool) -> Tile:
    verdict = "passed" if found["passed"] else "failed"
    if not current:
        return Tile("Parity", "stale", f"{verdict}, with another state of the bundle", "warn")
    note = f"{counted(len(found['stages']), 'stages')}, {counted(found['model']['positions'], 'positions')}"
    return Tile("Parity", verdict, note, "good" if found["passed"] else "bad")


def _verdict(found: dict[str, Any], current: bool) -> Note:
    if found["passed"]:
        text = "Every stage is within the tolerance of its numbers."
        return Note(text, "good") if current else Note(f"Then: {text}")
    return Note(f"Failed: {found['failure']}", "bad")


def _facts(found: dict[str, Any], source: Source) -> Facts:
    weights = "the weights that its codes stand for" if found["reference"] == "dequantized" else "the checkpoint's own"
    rows: list[tuple[str, Text]] = [
        ("compared with", Cell(PurePath(found["checkpoint"]).name, code=True)),
        ("weights on both sides", weights),
        ("activations", f"{found['activations']} when the bundle runs"),
        (
            "text",
            f"{counted(found['prompts'], 'prompts')}, continued by {found['model']['greedy_tokens']} tokens each",
        ),
    ]
    if when := source.when("parity"):
        rows.append(("measured", when))
    return Facts(tuple(rows))


def layers(stages: Sequence[Stage]) -> list[dict[str, list[Stage]]]:
    """For the embedding (first) and each layer after it the stages of hidden state, keys and values, exact modes only.

    hidden.i is what layer i reads: what layer i - 1 has made. A cache of factors has several tensors of each kind.
    """
    exact = [stage for stage in stages if stage["mode"] in EXACT_MODES]
    numbers = [int(name) for stage in exact if (name := stage["name"].partition("hidden.")[2]).isdecimal()]
    return [
        {
            "hidden state": [s for s in exact if s["name"] == f"hidden.{index}"],
            "keys": [s for s in exact if s["name"].startswith(f"cache.{index - 1}.key")],
            "values": [s for s in exact if s["name"].startswith(f"cache.{index - 1}.value")],
        }
        for index in range(max(numbers, default=-1) + 1)
    ]


def worst(stages: Sequence[Stage], measure: str) -> float | None:
    """The largest error or the smallest cosine of stages; None where one is not finite, or there is none."""
    values = [stage[measure] for stage in stages]
    if not values or None in values:
        return None
    return float(min(values) if measure == "cosine" else max(values))


def _layer_figure(stages: Sequence[Stage]) -> tuple[Figure, ...]:
    rows = layers(stages)
    series = []
    for kind in ("hidden state", "keys", "values"):
        errors = [(index, worst(row[kind], "relative_error")) for index, row in enumerate(rows)]
        points = tuple(Point(index, error) for index, error in errors if error is not None)
        if points:
            series.append(Series(kind, points))
    hidden = [stage for row in rows for stage in row["hidden state"]]
    if not series or not hidden:
        return ()
    most = min(stage["tolerance"]["relative_error"] for stage in hidden)
    plot = Lines(
        "Relative error after each layer",
        "layers so far (0: the embedding)",
        "relative error",
        tuple(series),
        limit=(most, f"tolerance {bound(most)}"),
        log_y=True,
    )
    return (Figure(plot, f"The worst of {', '.join(EXACT_MODES)}, over all prompts and positions.", numbers=False),)


def _mode_table(stages: Sequence[Stage]) -> Table:
    rows: list[tuple[Text, ...]] = []
    for mode in dict.fromkeys(stage["mode"] for stage in stages):
        own = [stage for stage in stages if stage["mode"] == mode]
        kinds = {kind: [s for s in own if s["name"].startswith(kind)] for kind in ("hidden", "cache", "logits")}
        cosines = (_number(worst(kinds[kind], "cosine"), "cosine", kinds[kind]) for kind in kinds)
        errors = (_number(worst(kinds["logits"], m), m, kinds["logits"]) for m in ("max_abs_error", "relative_error"))
        rows.append((mode, *cosines, *errors, _passed(own)))
    head = ("way to run it", "hidden cosine", "cache cosine", "logits cosine", "max |Δ logit|", "relative error", "")
    return Table("Each way to run the graph, at its worst", head, tuple(rows), numeric=(1, 2, 3, 4, 5))


def _layer_table(stages: Sequence[Stage]) -> tuple[Table, ...]:
    rows: list[tuple[Text, ...]] = []
    for index, row in enumerate(layers(stages)):
        cells = [
            _number(worst(row[kind], measure), measure, row[kind])
            for kind in row
            for measure in ("cosine", "relative_error", "max_abs_error")
        ]
        every = [stage for kind in row.values() for stage in kind]
        rows.append(("embedding" if index == 0 else str(index - 1), *cells, _passed(every)))
    kinds = ("hidden", "key", "value")
    columns = [f"{kind} {measure}" for kind in kinds for measure in ("cosine", "relative", "max error")]
    if not rows:
        return ()
    head = ("after layer", *columns, "")
    return (Table("Every layer", head, tuple(rows), numeric=tuple(range(1, 10)), folded=True),)


def _choices(model: dict[str, Any]) -> Table:
    prefixes, length = model["greedy_prefixes"], model["greedy_tokens"]
    bounds = model["tolerance"]
    same = "not finite" if model["top1"] is None else percent(model["top1"], 4)
    rows: tuple[tuple[Text, ...], ...] = (
        ("mean KL divergence", _nats(model["kl_mean"]), f"at most {bound(bounds['kl_mean'])} nats"),
        ("largest KL divergence", _nats(model["kl_max"]), ""),
        ("same most likely token", same, f"at least {bound(bounds['top1'] * 100)} %"),
        ("greedy tokens in common", ", ".join(map(str, prefixes)), f"of {length} for each prompt; not judged"),
    )
    return Table(f"Over {model['positions']:,} positions", ("", "found", "tolerance"), rows)


def _weights(weights: Sequence[dict[str, Any]]) -> tuple[Block, ...]:
    groups = []
    for bits in sorted({weight["bits"] for weight in weights}):
        errors = tuple(w["relative_error"] for w in weights if w["bits"] == bits and w["relative_error"] is not None)
        if errors:
            groups.append((f"{counted(len(errors), 'matrices')} of {bits} bits", errors))
    if not groups:
        return ()
    plot = Strips("What rounding does to each stored matrix", "", "relative error", tuple(groups), from_zero=True)
    failed = [weight["name"] for weight in weights if not weight["passed"]]
    notes = (Note(f"Beyond what rounding explains: {', '.join(failed[:5])}", "bad"),) if failed else ()
    return (Figure(plot, "‖stored − original‖ / ‖original‖; every dot is a matrix."), *notes)


def _nats(value: float | None) -> str:
    return "not finite" if value is None else f"{plain(value)} nats"


def _number(value: float | None, measure: str, stages: Sequence[Stage]) -> Text:
    if not stages:
        return "–"
    if value is None:
        return Cell("not finite", "bad")
    return f"{value:.7f}" if measure == "cosine" else plain(value)


def _passed(stages: Sequence[Stage]) -> Cell:
    failed = [stage["name"] for stage in stages if not stage["passed"]]
    return Cell("FAILED", "bad", note=", ".join(failed[:3])) if failed else Cell("ok", "good")
