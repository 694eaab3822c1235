"""Moments of inputs and gradients of outputs, measured with one block in memory.

Forward: each block's input is kept on the disk. Backward, from the last block: its input is taken through it again,
with the gradient of its output, which gives the moments, the outputs' gradients and the gradient for the block before.
Everything is done again from the last file that is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.checkpoint.safetensors_write import planned, write_safetensors
from edgekit.compress.layerwise.stack import Stack
from edgekit.compress.saten.whitening import Metric, metric
from edgekit.files import atomic_file
from edgekit.progress import Progress

Stop = Callable[[], bool]


@dataclass
class Measured:
    """Of one block.

    Attributes:
        moments: key -> sum of x xᵀ, float32 [K, K]; matrices that read one input share a key.
        key: weight -> key of its input's moments.
        outputs: weight -> sum of squared gradients of each output, float32 [N].
    """

    moments: dict[str, Tensor] = field(default_factory=dict)
    key: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def calibrate(stack: Stack, folder: Path, progress: Progress, stopped: Stop = lambda: False) -> bool:
    """Measure every block into `folder`/statistics.<layer>.safetensors; whether all are there (not when `stopped`)."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [layer for layer in range(stack.layers) if not statistics_file(folder, layer).is_file()]
    if not missing:
        return True
    if not _forward(stack, folder, progress, stopped):
        return False
    progress.stage("calibrate: sensitivities", len(missing), "layers")
    for layer in reversed(missing):
        if stopped():
            return False
        _backward(stack, folder, layer)
        progress.advance()
    for path in [*folder.glob("hidden.*.npy"), *folder.glob("gradient.*.npy")]:
        path.unlink()
    return True


def statistics_file(folder: Path, layer: int) -> Path:
    """Where a block's measurements are."""
    return folder / f"statistics.{layer}.safetensors"


def metric_of(folder: Path, layer: int, name: str, weight: Tensor) -> Metric:
    """The metric of a matrix, W [N, K], from what was measured."""
    from safetensors import safe_open

    with safe_open(statistics_file(folder, layer), framework="pt") as file:
        keys = json.loads(file.metadata()["keys"])
        return metric(weight, file.get_tensor(f"moments.{keys[name]}"), file.get_tensor(f"outputs.{name}"))


def _forward(stack: Stack, folder: Path, progress: Progress, stopped: Stop) -> bool:
    if any(folder.glob("gradient.*.npy")):
        return True
    progress.stage("calibrate: forward", stack.layers + 1, "layers")
    with torch.no_grad():
        if not _file(folder, "hidden", 0).is_file():
            with stack.loaded(None):
                count = len(stack.passages)
                _store(folder, "hidden", 0, joined(count, map(stack.begin, range(count))))
        for layer in range(stack.layers):
            if stopped():
                return False
            if not _file(folder, "hidden", layer + 1).is_file():
                hidden = _load(folder, "hidden", layer)
                with stack.loaded(layer):
                    parts = (stack.block(layer, x) for x in stack.grouped(hidden))
                    _store(folder, "hidden", layer + 1, joined(len(hidden), parts))
            progress.advance()
    last = _load(folder, "hidden", stack.layers)

    def gradient(index: int) -> Tensor:
        leaf = last[index : index + 1].requires_grad_()
        return torch.autograd.grad(stack.loss(leaf, index), leaf)[0]

    with stack.loaded(None):
        _store(folder, "gradient", stack.layers, joined(len(last), map(gradient, range(len(last)))))
    progress.advance()
    return True


def _backward(stack: Stack, folder: Path, layer: int) -> None:
    hidden, after = _load(folder, "hidden", layer), _load(folder, "gradient", layer + 1)
    measured = Measured()

    def before(x: Tensor, gradient: Tensor) -> Tensor:
        leaf = x.requires_grad_()
        return torch.autograd.grad(stack.block(layer, leaf), leaf, gradient)[0]

    with stack.loaded(layer), _hooks(stack.linear(layer), measured):
        pairs = zip(stack.grouped(hidden), stack.grouped(after), strict=True)
        gradients = joined(len(hidden), (before(x, gradient) for x, gradient in pairs))
    if layer:
        _store(folder, "gradient", layer, gradients)
    tokens = stack.passages.numel()
    entries = [planned(f"moments.{key}", (value / tokens).numpy()) for key, value in measured.moments.items()]
    entries += [planned(f"outputs.{name}", (value / tokens).numpy()) for name, value in measured.outputs.items()]
    write_safetensors(statistics_file(folder, layer), entries, {"keys": json.dumps(measured.key)})
    _file(folder, "gradient", layer + 1).unlink()


@contextmanager
def _hooks(modules: dict[str, nn.Linear], into: Measured) -> Iterator[None]:
    seen: dict[int, tuple[Tensor, str]] = {}

    def observe(name: str) -> Any:
        def backward(gradient: Tensor) -> None:
            into.outputs[name] = into.outputs.get(name, torch.zeros(())) + gradient.flatten(0, -2).square().sum(0)

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0]
            # The input is kept, so that no other tensor takes its place in memory.
            if id(x) not in seen:
                seen.clear()
                seen[id(x)] = (x, name)
                flat = x.detach().flatten(0, -2)
                into.moments[name] = into.moments.get(name, torch.zeros(())) + flat.T @ flat
            into.key[name] = seen[id(x)][1]
            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return hook

    handles = [module.register_forward_hook(observe(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _file(folder: Path, kind: str, layer: int) -> Path:
    return folder / f"{kind}.{layer}.npy"


def _store(folder: Path, kind: str, layer: int, found: Tensor) -> None:
    with atomic_file(_file(folder, kind, layer)) as file:
        np.save(file, found.numpy())


def joined(count: int, parts: Iterable[Tensor]) -> Tensor:
    """[count, S, hidden] of parts [n, S, hidden] that are made one after the other; AssertionError for more or fewer.

    There is room for all before the second is made. Kept one by one, each would lie where the large temporaries of its
    making had been, the next ones would find no room there, and the heap would grow by them every time.
    """
    found, at = torch.empty(0), 0
    for part in parts:
        start, at = at, at + len(part)
        if start == 0:
            found = torch.empty((count, *part.shape[1:]), dtype=part.dtype)
        if at <= count:
            found[start:at] = part.detach()
    if at != count:
        raise AssertionError(f"{count} passages were to be joined, and there are {at}")
    return found


def _load(folder: Path, kind: str, layer: int) -> Tensor:
    return torch.from_numpy(np.load(_file(folder, kind, layer)))
