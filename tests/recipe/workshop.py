"""A tiny checkpoint, its recipe, and stand-ins for exporting and comparing that tell how often they were called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgekit.bundle import Bundle, write_bundle
from edgekit.checkpoint import Checkpoint, open_checkpoint
from edgekit.progress import Progress, SilentProgress
from edgekit.recipe.make import Made, Step, make, plan
from edgekit.recipe.recipe import Recipe, read_recipe
from tests.conftest import paper_manifest
from tests.parity.tiny_models import write_checkpoint
from tests.recipe.recipes import DIGEST, write_recipe


def graph(relus: int = 2) -> bytes:
    """An ONNX model with that many Relu nodes, one weight, and two layers' worth of inputs."""
    inputs = [helper.make_tensor_value_info(f"past_key_values.{i}.key", TensorProto.FLOAT, ["B", 4]) for i in (0, 1)]
    weight = helper.make_tensor("weight", TensorProto.UINT8, [2, 3], bytes(6), raw=True)
    names = ["past_key_values.0.key", *(f"x{i}" for i in range(relus))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    output = helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["B", 4])
    made = helper.make_model(
        helper.make_graph(nodes, "tiny", inputs, [output], [weight]), opset_imports=[helper.make_opsetid("", 23)]
    )
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


@dataclass
class Workshop:
    """Runs `make` in a directory; `on_export` and `on_parity` are called in the middle of those steps.

    Attributes:
        calls: the stand-ins that were called, in order, since it was emptied.
        relus: how many nodes the exported graph has.
        verdict: what the comparison finds.
    """

    folder: Path
    calls: list[str] = field(default_factory=list)
    relus: int = 2
    verdict: bool = True
    on_export: Callable[[], None] = lambda: None
    on_parity: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.checkpoint = write_checkpoint(self.folder / "weights", "llama")
        self.destination = self.folder / "bundles" / "tiny.cpu"
        self.write()

    def hashes(self) -> list[str]:
        """The lines of [checkpoint.sha256] that belong to the checkpoint as it is."""
        return [f'"{file["name"]}" = "{file["sha256"]}"' for file in open_checkpoint(self.checkpoint).files()]

    def write(self, *changes: tuple[str, str]) -> Recipe:
        """Write the recipe, with these changes, and read it."""
        right = (f'"model.gguf" = "{DIGEST}"', "\n".join(self.hashes()))
        self.recipe = read_recipe(write_recipe(self.folder, right, *changes))
        return self.recipe

    def make(self, **options: Any) -> Made:
        self.calls.clear()
        progress = options.pop("progress", SilentProgress())
        return make(
            self.recipe, self.destination, export=self._export, parity=self._parity, progress=progress, **options
        )

    def plan(self, force: str | None = None) -> list[Step]:
        return plan(self.recipe, self.destination, force=force, progress=SilentProgress())

    def left(self) -> list[str]:
        """What lies beside the destination, the destination included."""
        folder = self.destination.parent
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def _export(
        self, checkpoint: Checkpoint, destination: Path, recipe: Recipe, kept: dict[str, Any], progress: Progress
    ) -> None:
        self.calls.append("export")
        with write_bundle(destination, overwrite=True) as draft:
            progress.stage("writing", 1, "tensors")
            (draft.path / "model.onnx").write_bytes(graph(self.relus))
            (draft.path / "model.onnx.data").write_bytes(bytes(1000))
            self.on_export()
            rules = {"fuse_norm": {"fired": 3, "refused": [{"node": "a", "reason": "because"}]}}
            fields = {**paper_manifest(), "dtype": recipe.quantization.dtype, "recipe": kept, "rules": rules}
            draft.manifest.update(fields)

    def _parity(self, bundle: Bundle, checkpoint: Checkpoint, recipe: Recipe, progress: Progress) -> dict[str, Any]:
        self.calls.append("parity")
        self.on_parity()
        return {"passed": self.verdict, "failure": None if self.verdict else "prefill, hidden.1: cosine 0.5 is below 1"}


def statuses(steps: list[Step]) -> dict[str, str]:
    """Step -> "done" or "skipped"."""
    return {step.name: step.status for step in steps}


def done(steps: list[Step]) -> list[str]:
    """The steps that were done."""
    return [step.name for step in steps if step.status == "done"]
