"""Gated feed-forward layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import ModelError


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form (arXiv 1606.08415)."""
    return functional.gelu(x, approximate="tanh")


#: Activations by their Hugging Face name.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": gelu_tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of that Hugging Face name; ModelError lists the known ones."""
    if name not in ACTIVATIONS:
        raise ModelError(
            f"The activation must be one of {', '.join(sorted(ACTIVATIONS))}.",
            f"The configuration says {name!r}.",
            "This activation is not supported.",
        )
    return ACTIVATIONS[name]


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int, act: str, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        return output
