"""End to end: the converted model's next-token distribution and residual stream against the source's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.heal.full_attention import head_of, layer_output, layers_of
from edgekit.heal.head_divergence import HeadDivergence
from edgekit.heal.parameters import groups
from edgekit.layers.decoder import Decoder

WARMUP = 10


@dataclass(frozen=True)
class DistillOptions:
    """How to train.

    Attributes:
        length: tokens of a passage.
        batch: passages of a step.
        rate: relative step of AdamW.
        hidden_weight: of the residual stream's relative error beside the KL divergence in nats.
        compute: "float32", or "bfloat16" for the operands of matrix products; what is trained stays float32.
    """

    length: int = 512
    batch: int = 2
    rate: float = 5e-4
    hidden_weight: float = 0.2
    compute: str = "float32"


@dataclass
class Course:
    """What a run can be continued from: steps done, seconds spent, the optimiser's state and its groups' base rates."""

    step: int = 0
    seconds: float = 0.0
    optimizer: dict[str, Any] | None = None
    rates: list[float] | None = None


def distill(
    student: Decoder,
    teacher: Decoder,
    tokens: Tensor,
    parameters: dict[str, nn.Parameter],
    options: DistillOptions,
    seconds: float,
    course: Course,
    *,
    log: Callable[[dict[str, float]], None] = lambda entry: None,
    save: Callable[[Course], None] = lambda course: None,
    advance: Callable[[int], None] = lambda count: None,
    save_every: float = 120.0,
) -> None:
    """Train `parameters` in place until `seconds` are spent in all, those of an earlier run (`course`) included.

    Args:
        tokens: int64 [n, length] of passages; a step takes `options.batch` of them.
        log: called after each step with step, seconds, nats (KL per token) and hidden (relative error²).
        save: called about every `save_every` seconds and at the end.
        advance: called with the whole seconds that went by.
    """
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if options.compute == "bfloat16":
        keep_in_bfloat16([*student.parameters(), *teacher.parameters()])
    optimizer = torch.optim.AdamW(groups(parameters, options.rate), betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)
    # Relative to the parameters as they were at the beginning, also for a run that goes on.
    rates = course.rates = course.rates or [group["lr"] for group in optimizer.param_groups]
    if course.optimizer is not None:
        optimizer.load_state_dict(course.optimizer)
    began, saved, shown = time.monotonic() - course.seconds, time.monotonic(), int(course.seconds)
    while course.seconds < seconds:
        fraction = course.seconds / seconds
        schedule = min(1.0, (course.step + 1) / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction)))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule
        with precision(options.compute):
            nats, hidden = divergence(student, teacher, passages(tokens, course.step, options.batch))
        optimizer.zero_grad()
        (nats + options.hidden_weight * hidden).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), 10.0)
        optimizer.step()
        course.step += 1
        course.seconds = time.monotonic() - began
        log({"step": course.step, "seconds": course.seconds, "nats": nats.item(), "hidden": hidden.item()})
        advance(int(course.seconds) - shown)
        shown = int(course.seconds)
        if time.monotonic() - saved > save_every:
            course.optimizer = optimizer.state_dict()
            save(course)
            saved = time.monotonic()
    course.optimizer = optimizer.state_dict()
    save(course)
    for parameter in parameters.values():
        parameter.requires_grad_(False)


def passages(tokens: Tensor, step: int, batch: int) -> Tensor:
    """[batch, length]: passages in an order that depends on the epoch alone, so that a resumed run goes on alike."""
    return torch.stack([_passage(tokens, index) for index in range(step * batch, (step + 1) * batch)])


def _passage(tokens: Tensor, index: int) -> Tensor:
    epoch, place = divmod(index, len(tokens))
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(epoch))
    return tokens[order[place]]


def precision(compute: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """Inside it, products on that device are computed in that type ("float32" or "bfloat16")."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if compute == "bfloat16" else nullcontext()


def keep_in_bfloat16(parameters: Iterable[nn.Parameter]) -> None:
    """Store matrices that are not trained as products read them, so that they are not converted at each step."""
    for parameter in parameters:
        if parameter.dim() == 2 and not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()


def divergence(student: Decoder, teacher: Decoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """KL(source || student) in nats per token, and the mean relative error² of the residual streams; ids [B, S]."""
    with torch.no_grad():
        expected, targets = _embedded(teacher, ids), []
        for layer in layers_of(teacher):
            expected = layer_output(teacher, layer, expected)
            targets.append(expected)
        wanted = teacher.model.norm(expected)
    own = _embedded(student, ids)
    errors = []
    for layer, target in zip(layers_of(student), targets, strict=True):
        own = layer_output(student, layer, own)
        # By token: the few of huge norm would drown all others.
        energy = target.square().mean(-1)
        error = (own - target).square().mean(-1) / energy
        # Bounded: a token whose huge activation comes out on the wrong side must not outweigh all others.
        errors.append((error / (1 + error)).mean())
    found = student.model.norm(own)
    nats: Tensor = HeadDivergence.apply(  # type: ignore[no-untyped-call]
        found.flatten(0, 1), wanted.flatten(0, 1), head_of(student), head_of(teacher)
    )
    return nats, torch.stack(errors).mean()


def _embedded(model: Decoder, ids: Tensor) -> Tensor:
    """The residual stream before the first layer, in at least float32 however the embedding is stored."""
    hidden: Tensor = model.model.embed_tokens(ids)
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))
