"""What a model's matrices see and how much their outputs matter, measured on calibration text.

For each unit: M = E[x xᵀ] of its inputs. For each matrix: g = E[(∂loss/∂y)²] of its outputs. With both, an error ΔW of
a matrix raises the loss per token by about ½ Σ_n g_n (ΔW M ΔWᵀ)_nn nats: the quadratic form of the empirical Fisher
information under K-FAC's independence assumption (Martens & Grosse, arXiv 1503.05671).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from edgekit.compress.units import EMBEDDING, HEAD, HEAD_UNIT, unit_of
from edgekit.errors import ExportError
from edgekit.layers.decoder import Decoder

TEXT = "calibration.txt"


@dataclass
class Statistics:
    """Measured moments.

    Attributes:
        moments: unit → E[x xᵀ], float32 [K, K].
        gradients: matrix name → E[(∂loss/∂y)²] per output, float32 [N]; loss is the mean over tokens of a sequence's
            next-token cross entropy, times its length.
        tokens: how many positions were averaged.
    """

    moments: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 0


def calibration_text() -> str:
    """The text that edgekit carries: public-domain prose, see `data/README.md`."""
    return (resources.files("edgekit.compress") / "data" / TEXT).read_text(encoding="utf-8")


def calibration_tokens(tokenizer_json: bytes, text: str, sequences: int, length: int) -> torch.Tensor:
    """Token ids int64 [sequences, length], passages spread evenly over the text.

    Raises:
        ExportError: the text is too short.
    """
    ids = _token_ids(tokenizer_json, text, length)
    last = len(ids) - length
    starts = [round(i * last / max(1, sequences - 1)) for i in range(sequences)]
    return torch.tensor([ids[start : start + length] for start in starts])


def whole_text(tokenizer_json: bytes, text: str, length: int) -> torch.Tensor:
    """Token ids int64 [n, length] of the whole text, one passage after the other; what is left at its end is dropped.

    Raises:
        ExportError: the text is too short.
    """
    ids = _token_ids(tokenizer_json, text, length)
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)


def _token_ids(tokenizer_json: bytes, text: str, least: int) -> list[int]:
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    # Settings of a training run may be saved with it, and would cut the text.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) < least:
        raise ExportError(
            f"calibration text must hold at least {least} tokens",
            f"it holds {len(ids)}",
            "give a longer text, or fewer tokens per sequence",
        )
    return ids


def measure(
    model: Decoder,
    tokens: torch.Tensor,
    units: set[str],
    *,
    gradients: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> Statistics:
    """Run the tokens [n, length] through the model, one sequence at a time, and gather statistics.

    Args:
        units: units whose input moments are wanted (they take K² floats each).
        gradients: whether to measure output gradients of all matrices too (a backward pass).
        advance: called with 1 after each sequence.
    """
    statistics = Statistics()
    with _hooks(model, units, gradients, statistics):
        for row in tokens:
            statistics.tokens += len(row)
            with torch.set_grad_enabled(gradients):
                loss = _loss(model, row[None])
                if gradients:
                    loss.backward()  # type: ignore[no-untyped-call]
            advance(1)
    for table in (statistics.moments, statistics.gradients):
        for value in table.values():
            value /= statistics.tokens
    return statistics


def _loss(model: Decoder, row: torch.Tensor) -> torch.Tensor:
    """Summed next-token cross entropy of one sequence [1, length], in nats."""
    logits = model(row, torch.ones_like(row), model.empty_cache(1), torch.tensor([0])).logits[0]
    return functional.cross_entropy(logits[:-1], row[0, 1:], reduction="sum")


@contextmanager
def _hooks(model: Decoder, units: set[str], gradients: bool, into: Statistics) -> Iterator[None]:
    handles = []

    def gather_inputs(unit: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x = (output if unit == HEAD_UNIT else inputs[0]).detach().flatten(0, -2).float()
            into.moments[unit] = into.moments.get(unit, 0) + x.T @ x

        return hook

    def gather_gradients(name: str) -> Any:
        def backward(gradient: torch.Tensor) -> None:
            squared = gradient.flatten(0, -2).float().square().sum(0)
            into.gradients[name] = into.gradients.get(name, 0) + squared

        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return hook

    seen: set[str] = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear) or module is model.lm_head:
            continue
        name = f"{path}.weight"
        unit = unit_of(name)
        if unit in units and unit not in seen:  # the matrices of a unit share their input
            seen.add(unit)
            handles.append(module.register_forward_hook(gather_inputs(unit)))
        if gradients:
            handles.append(module.register_forward_hook(gather_gradients(name)))
    if HEAD_UNIT in units:
        handles.append(model.model.norm.register_forward_hook(gather_inputs(HEAD_UNIT)))
    if gradients:
        # Parameters need no gradient: the graph starts at the embedding's output.
        handles.append(model.model.embed_tokens.register_forward_hook(lambda m, i, output: output.requires_grad_()))
        handles.append(model.register_forward_hook(_head_gradients(into, EMBEDDING if model.lm_head is None else HEAD)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _head_gradients(into: Statistics, name: str) -> Any:
    def backward(gradient: torch.Tensor) -> None:
        into.gradients[name] = into.gradients.get(name, 0) + gradient.flatten(0, -2).square().sum(0)

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        output.logits.register_hook(backward)

    return hook
