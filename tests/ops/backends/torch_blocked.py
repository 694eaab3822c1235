"""The blocked form in PyTorch, which makes neither K nor V; only operators that have one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from edgekit.ops.spec import OpSpec
from tests.ops.arrays import array_from_tensor, tensor_from_array
from tests.ops.in_place import in_place_by_growing

NAME = "torch_blocked"
DTYPES = ("float64", "float32", "float16", "bfloat16")


def available() -> str | None:
    return None


def lacks(spec: OpSpec) -> str | None:
    """Why this backend does not run an operator; None if it does."""
    has = hasattr(import_module(f"edgekit.ops.{spec.stem}"), "blocked")
    return None if has else f"{spec.name} has no blocked form"


def run(
    spec: OpSpec, attributes: dict[str, Any], inputs: dict[str, np.ndarray], in_place: bool
) -> dict[str, np.ndarray]:
    blocked = import_module(f"edgekit.ops.{spec.stem}").blocked

    def grow(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = blocked(attributes, {name: tensor_from_array(value) for name, value in given.items()})
        return {name: array_from_tensor(value) for name, value in outputs.items()}

    return in_place_by_growing(spec, inputs, grow) if in_place else grow(inputs)
