"""In which sense an error of a weight matrix is small: E‖diag(√g) ΔW x‖² instead of ‖ΔW‖²."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgekit.compress.gptq import inverse_factor
from edgekit.errors import ExportError

#: Added to the moments' diagonal before they are factored or divided by, as a share of its mean: a few thousand
#: tokens of calibration never excite every direction.
DAMPING = 1e-3


@dataclass(frozen=True)
class Metric:
    """The metric of a matrix W [N out, K in].

    Attributes:
        moments: M = E[x xᵀ] of its inputs, float64 [K, K].
        outputs: g, how much each output matters (E[(∂loss/∂y)²]), float64 [N]. With it, half the squared error is the
            expected increase of the loss (`edgekit.compress.sensitivity.expected_cost`).
        damping: see DAMPING.
    """

    moments: Tensor
    outputs: Tensor
    damping: float = DAMPING

    def squared(self, error: Tensor) -> float:
        """Σ_n g_n (ΔW M ΔWᵀ)_nn of an error [N, K]; undamped."""
        error = error.double()
        return float(((error @ self.moments) * error).sum(1) @ self.outputs)

    @cached_property
    def damped(self) -> Tensor:
        """M with `damping` times its mean diagonal added, float64 [K, K]."""
        ridge = self.damping * float(self.moments.diagonal().mean())
        damped: Tensor = self.moments + ridge * torch.eye(len(self.moments), dtype=torch.float64)
        return damped

    @cached_property
    def scale(self) -> Tensor:
        """√E[x²] of each input (OATS, arXiv 2409.13652), float64 [K], all above 0."""
        squares = self.damped.diagonal()
        return squares.clamp(min=1e-12 * float(squares.mean()) + torch.finfo(torch.float64).tiny).sqrt()

    @cached_property
    def root(self) -> Tensor:
        """√g, none below a thousandth of its mean, so that it may be divided by: float64 [N]."""
        root: Tensor = self.outputs.clamp(min=0).sqrt()
        return root.clamp(min=max(1e-3 * float(root.mean()), 1e-150))

    @cached_property
    def factor(self) -> Tensor:
        """C, lower triangular, with C Cᵀ = the damped M: float64 [K, K]. ‖ΔW C‖_F² = E‖ΔW x‖² (SVD-LLM,
        arXiv 2403.07378, section 3.1)."""
        return cholesky(self.damped)

    @cached_property
    def upper(self) -> Tensor:
        """What GPTQ needs of the moments: float32 [K, K]."""
        return inverse_factor(self.moments)


def metric(weight: Tensor, moments: Tensor | None = None, outputs: Tensor | None = None) -> Metric:
    """The metric from what was measured; without moments, or without outputs, all inputs, or outputs, count alike.

    Raises:
        ExportError: moments or outputs of another size than the matrix [N, K], or not finite.
    """
    rows, inputs = weight.shape
    m = torch.eye(inputs, dtype=torch.float64) if moments is None else moments.double()
    g = torch.ones(rows, dtype=torch.float64) if outputs is None else outputs.double()
    for name, found, wanted in (("moments", m, (inputs, inputs)), ("gradients", g, (rows,))):
        if tuple(found.shape) != wanted or not bool(found.isfinite().all()):
            raise ExportError(
                f"the {name} of a matrix [{rows}, {inputs}] are finite and of shape {wanted}",
                f"they are {tuple(found.shape)}" + ("" if found.isfinite().all() else ", with NaN or infinity"),
                "calibrate again with this model",
            )
    return Metric(m, g)


def relative(error: float, whole: float) -> float:
    """√ of an error's square over the weights', two of `Metric.squared`; 0 where there are no weights."""
    return 0.0 if whole <= 0 else (max(0.0, error) / whole) ** 0.5


def cholesky(moments: Tensor) -> Tensor:
    """Lower factor of a symmetric matrix, repaired where it is not positive definite.

    SVD-LLM adds −λ_min + 1e-6 to the diagonal then; here the 1e-6 is a share of the mean diagonal, so that the repair
    does not depend on the inputs' unit.
    """
    factor, failed = torch.linalg.cholesky_ex(moments)
    if not failed:
        intact: Tensor = factor
        return intact
    least = float(torch.linalg.eigvalsh(moments)[0])
    shift = max(0.0, -least) + 1e-6 * float(moments.diagonal().mean()) + 1e-150
    repaired: Tensor = torch.linalg.cholesky(moments + shift * torch.eye(len(moments), dtype=moments.dtype))
    return repaired
