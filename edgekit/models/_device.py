"""Where PyTorch computes: a device by its name."""

from __future__ import annotations

import torch

from edgekit.errors import ModelError


def checked_device(name: str, purpose: str) -> str:
    """The name, of a device that PyTorch has.

    Args:
        name: as PyTorch has it: cpu, cuda, cuda:1, …
        purpose: what is done there, as in "heads are trained".

    Raises:
        ModelError: PyTorch has no such device.
    """
    try:
        torch.empty(1, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"{purpose} on a device that PyTorch has",
            f"{name}: {str(error).splitlines()[0]}",
            "use --device cpu, or install a PyTorch that is built for the device",
        ) from error
    return name
