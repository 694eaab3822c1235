"""The engine of `edgekit make`: pull, export, fingerprint, parity, bundle, each skipped where nothing changed.

A bundle comes to its destination as a whole and only after it has passed its checks; until then it waits beside it, so
that a run that is cut short is continued by the next one and the earlier bundle stays in use.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekit.bundle import Bundle, read_bundle, write_sidecar
from edgekit.checkpoint import Checkpoint
from edgekit.errors import ParityFailed
from edgekit.progress import Progress
from edgekit.recipe.fetch import checkpoint_of_recipe, is_local
from edgekit.recipe.fingerprint import check_fingerprint, fingerprint_of, write_fingerprint
from edgekit.recipe.inputs import export_inputs
from edgekit.recipe.publish import check_destination, publish
from edgekit.recipe.recipe import Recipe
from edgekit.recipe.state import INPUTS_KEY, Found, Record, find_bundle, only_maker, waiting_place

StepName = Literal["pull", "export", "fingerprint", "parity", "bundle"]
#: In the order in which they run.
STEPS: tuple[StepName, ...] = ("pull", "export", "fingerprint", "parity", "bundle")
#: The steps that can be asked for though nothing changed. A checkpoint is checked by its hash each time it is used.
FORCIBLE = ("export", "parity")

#: (checkpoint, destination, recipe, what to keep in the manifest, progress): writes a bundle.
ExportFunction = Callable[[Checkpoint, Path, Recipe, dict[str, Any], Progress], object]
#: (bundle, checkpoint, recipe, progress): the report as parity.json holds it, with "passed" and "failure".
ParityFunction = Callable[[Bundle, Checkpoint, Recipe, Progress], dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """What became of one step: it was done, or skipped for the reason in `detail`."""

    name: StepName
    status: Literal["done", "skipped"]
    detail: str
    seconds: float = 0.0


@dataclass
class Made:
    """The result of a run. `parity` is the report, None where the comparison was skipped."""

    path: Path
    steps: list[Step] = field(default_factory=list)
    parity: dict[str, Any] | None = None


def plan(recipe: Recipe, destination: Path, *, force: str | None, progress: Progress) -> list[Step]:
    """What `make` would do now, without doing it: the same steps with "done" for those that would run."""
    check_destination(destination, recipe)
    found = _found(recipe, destination, force, progress)
    record = Record(found.bundle, recipe) if found.bundle is not None else None
    compared = record is not None and force != "parity" and record.parity_passed()
    golden = record is not None and record.fingerprint_passed()
    needed = found.bundle is None or not compared
    local = is_local(recipe)
    return [
        Step("pull", "done" if needed and not local else "skipped", _why_pull(needed, local)),
        Step("export", "done" if found.bundle is None else "skipped", found.reason),
        Step("fingerprint", *(("skipped", "as before") if golden else _why_fingerprint(recipe))),
        Step("parity", *(("skipped", "passed before") if compared else ("done", "compare with PyTorch"))),
        Step("bundle", "skipped" if found.published else "done", str(destination)),
    ]


def make(
    recipe: Recipe,
    destination: Path,
    *,
    export: ExportFunction,
    parity: ParityFunction,
    progress: Progress,
    offline: bool = False,
    force: str | None = None,
    update_fingerprint: bool = False,
) -> Made:
    """Make the recipe's bundle at `destination`, doing what is not up to date.

    Args:
        force: "export" or "parity": do this step, and what follows from it, though nothing changed.
        update_fingerprint: write the golden fingerprint instead of comparing with it.

    Raises:
        CheckpointError, DoesNotFit, ExportError, RewriteError: as pulling and exporting do.
        RecipeError: the checkpoint or the graph is not the one that the recipe names, or `destination` holds a bundle
            that the recipe did not make.
        BundleError: `destination` holds something else than a bundle.
        ParityFailed: the bundle does not compute what PyTorch computes; it stays in its waiting place.
    """
    check_destination(destination, recipe)
    with only_maker(destination):
        return _Run(recipe, destination, export, parity, progress, offline).run(force, update_fingerprint)


@dataclass
class _Run:
    recipe: Recipe
    destination: Path
    export: ExportFunction
    parity: ParityFunction
    progress: Progress
    offline: bool

    def run(self, force: str | None, update_fingerprint: bool) -> Made:
        self.made = Made(self.destination)
        self.clock = time.monotonic()
        found = _found(self.recipe, self.destination, force, self.progress)
        compared = found.bundle is not None and force != "parity" and Record(found.bundle, self.recipe).parity_passed()
        checkpoint = None
        if found.bundle is None or not compared:
            checkpoint = self._pull()
        else:
            self._skip("pull", "the bundle is up to date")
        bundle = self._export(checkpoint, found)
        record = Record(bundle, self.recipe)
        self._fingerprint(bundle, record, update_fingerprint)
        if compared:
            self._skip("parity", "passed before")
        else:
            assert checkpoint is not None
            self._compare(bundle, checkpoint, record)
        if found.published:
            self._skip("bundle", "in its place")
        else:
            publish(bundle, self.destination)
            self._done("bundle", str(self.destination))
        shutil.rmtree(waiting_place(self.destination), ignore_errors=True)
        return self.made

    def _pull(self) -> Checkpoint:
        local = is_local(self.recipe)
        checkpoint = checkpoint_of_recipe(self.recipe, self.offline, self.progress)
        if local:
            self._skip("pull", _why_pull(True, True))
        else:
            self._done("pull", str(checkpoint.path))
        return checkpoint

    def _export(self, checkpoint: Checkpoint | None, found: Found) -> Bundle:
        if found.bundle is not None:
            self._skip("export", found.reason)
            return found.bundle
        assert checkpoint is not None
        place = waiting_place(self.destination)
        kept = {"file": self.recipe.path.name, INPUTS_KEY: export_inputs(self.recipe), **self.recipe.tables()}
        self.export(checkpoint, place, self.recipe, kept, self.progress)
        bundle = read_bundle(place, verify="size")
        self._done("export", found.reason)
        return bundle

    def _fingerprint(self, bundle: Bundle, record: Record, update: bool) -> None:
        golden = self.recipe.fingerprint_path
        if update:
            write_fingerprint(golden, fingerprint_of(bundle))
            record.keep_fingerprint()
            self._done("fingerprint", f"written to {golden}")
        elif record.fingerprint_passed():
            self._skip("fingerprint", "as before")
        elif check_fingerprint(fingerprint_of(bundle), golden):
            record.keep_fingerprint()
            self._done("fingerprint", f"the graph is as {golden} says")
        else:
            self._skip("fingerprint", f"there is no {golden} yet: --update-fingerprint writes it")

    def _compare(self, bundle: Bundle, checkpoint: Checkpoint, record: Record) -> None:
        report = self.parity(bundle, checkpoint, self.recipe, self.progress)
        if report.get("passed") is not True:
            raise ParityFailed(
                "a bundle must compute what PyTorch computes, within the tolerance of its numbers",
                str(report.get("failure")),
                f"see every stage: edgekit parity {bundle.path} --against {checkpoint.path}",
            )
        write_sidecar(bundle, "parity", report)
        record.keep_parity()
        self.made.parity = report
        self._done("parity", "passed")

    def _done(self, name: StepName, detail: str) -> None:
        now = time.monotonic()
        self.made.steps.append(Step(name, "done", detail, round(now - self.clock, 2)))
        self.clock = now

    def _skip(self, name: StepName, detail: str) -> None:
        self.made.steps.append(Step(name, "skipped", detail))
        self.clock = time.monotonic()


def _found(recipe: Recipe, destination: Path, force: str | None, progress: Progress) -> Found:
    if force == "export":
        return Found(None, False, "asked for by --force")
    return find_bundle(recipe, destination, progress)


def _why_pull(needed: bool, local: bool) -> str:
    if not needed:
        return "the bundle is up to date"
    return "the checkpoint is on this machine" if local else "the checkpoint is not on this machine yet"


def _why_fingerprint(recipe: Recipe) -> tuple[Literal["done", "skipped"], str]:
    golden = recipe.fingerprint_path
    if golden.is_file():
        return "done", f"compare with {golden}"
    return "skipped", f"there is no {golden} yet: --update-fingerprint writes it"
