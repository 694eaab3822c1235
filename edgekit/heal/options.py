"""What a healing is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import ExportError
from edgekit.heal.distill import DistillOptions
from edgekit.models._device import checked_device

#: Types of the operands of products in distillation.
COMPUTE = ("float32", "bfloat16")


@dataclass(frozen=True)
class HealOptions:
    """What is asked for.

    Attributes:
        minutes: of distillation end to end, after the layers are fitted.
        sequences: passages of the text for fitting layers; distillation reads the whole text.
        length: tokens of each, there and there.
        epochs: over the passages for fitting.
        also: what else to train: of a converted model projections of the source (`edgekit.heal.parameters.KEPT`), of a
            compressed one `edgekit.heal.trainable.ALSO`.
        batch: passages of a step of distillation.
        rate: of distillation, relative to a parameter's root mean square.
        compute: "float32", or "bfloat16" for the operands of products in distillation.
        steps: of distillation of a compressed model; None for as many as the minutes hold.
        device: of PyTorch, to distil a compressed model on.
    """

    minutes: float = 20.0
    sequences: int = 64
    length: int = 384
    epochs: float = 2.0
    also: tuple[str, ...] = ()
    batch: int = DistillOptions.batch
    rate: float = DistillOptions.rate
    compute: str = DistillOptions.compute
    steps: int | None = None
    device: str = "cpu"


def check_compute(options: HealOptions) -> None:
    """ExportError for a type that nothing is computed in, and for less than nothing; ModelError without the device."""
    if options.compute not in COMPUTE:
        raise ExportError(f"Healing computes in {' or '.join(COMPUTE)}.", f"{options.compute!r} was asked for.")
    checked_device(options.device, "models are healed")
    if options.minutes < 0 or options.epochs < 0:
        raise ExportError("Minutes and epochs must not be negative.", f"{options.minutes} and {options.epochs}.")
