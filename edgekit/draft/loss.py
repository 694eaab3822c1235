"""The loss of draft heads: each next token's distribution under the mixture, against the model's own and the text.

For a row with known tokens x_1..x_n after it, log weights log w and components p_alpha^{(s)} = softmax(E v_{s,alpha}):

    a_s = log w + sum_{j<s} log p_alpha^{(j)}(x_j),   pi_s = softmax(a_s)
    q_s(x) = sum_alpha pi_{s,alpha} p_alpha^{(s)}(x)
    loss = - sum_s sum_x T_s(x) log q_s(x),           T_s = gamma_s (beta P_s + (1 - beta) [x = x_s])

With beta = 0 and gamma = 1 it is -log of the joint (arXiv 2410.17765, equation 6): the product of the conditionals is
the joint; with beta > 0 it distils the model's distributions P_s into them. Gradients are closed forms, so that no
[rows, n, r, D] tensor outlives its chunk; with rho_alpha(x) = pi_alpha p_alpha(x) / q(x):

    c_{s,alpha} = sum_x T_s(x) rho_{s,alpha}(x),  m_s = sum_x T_s(x),  g_s = m_s pi_s - c_s = dloss/da_s
    dloss/dlog w = sum_s g_s,                     G_j = sum_{s>j} g_s = dloss/dlog p^{(j)}(x_j)
    dloss/dlogits_{s,alpha}(x) = -T_s(x) rho_{s,alpha}(x) + c_{s,alpha} p_alpha(x)
                                 + G_{s,alpha} ([x = x_s] - p_alpha(x))
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

#: Rows of logits that are in work at once: measured, the fastest of 160 to 1,280 for a vocabulary of 8,192.
_LOGIT_ROWS = 160


class Targets(NamedTuple):
    """What N rows are trained on.

    tokens: int64 [N, n], places in the draft vocabulary; -1 for a token that is not in it.
    model: [N, n, D] probabilities P_s over the draft vocabulary, sum at most 1.
    weight: [N, n] gamma_s; 0 leaves a position out.
    """

    tokens: Tensor
    model: Tensor
    weight: Tensor


class MixtureLoss(torch.autograd.Function):
    """The loss summed over rows; differentiable in v and log w. The unembedding gets no gradient."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, log_w: Tensor, unembedding: Tensor, targets: Targets, beta: float, chunk: int | None = None
    ) -> Tensor:
        """
        Args:
            v: [N, n, r, d].
            log_w: [N, r], normalised.
            unembedding: [D, d]; products are made in its type, everything else in at least float32.
            beta: share of the model's distribution beside the text's own token.
            chunk: rows at once; None for as many as stay in a processor's cache, or all on another device.
        """
        compute = torch.promote_types(log_w.dtype, torch.float32)
        if chunk is None:
            chunk = max(1, _LOGIT_ROWS // (v.shape[1] * v.shape[2])) if v.device.type == "cpu" else len(v)
        grad_v, grad_w = torch.empty_like(v), torch.empty(log_w.shape, dtype=compute)
        total = torch.zeros((), dtype=compute, device=v.device)
        for start in range(0, len(v), chunk):
            rows = slice(start, start + chunk)
            part = Targets(*(value[rows] for value in targets))
            logits = functional.linear(v[rows].to(unembedding.dtype).contiguous(), unembedding).to(compute)
            loss, d_logits, d_w = _closed_form(logits, log_w[rows].to(compute), part, beta)
            total += loss
            grad_v[rows] = torch.matmul(d_logits.to(unembedding.dtype), unembedding).to(v.dtype)
            grad_w[rows] = d_w
        ctx.save_for_backward(grad_v, grad_w.to(log_w.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """With respect to v and log w."""
        grad_v, grad_w = ctx.saved_tensors
        return upstream * grad_v, upstream * grad_w, None, None, None, None


def mixture_loss(v: Tensor, log_w: Tensor, unembedding: Tensor, targets: Targets, beta: float) -> Tensor:
    """`MixtureLoss` of these arguments."""
    loss: Tensor = MixtureLoss.apply(v, log_w, unembedding, targets, beta)  # type: ignore[no-untyped-call]
    return loss


def _closed_form(logits: Tensor, log_w: Tensor, targets: Targets, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient of the logits [N, n, r, D] (which are overwritten) and of log w [N, r]."""
    known = (targets.tokens >= 0).to(logits.dtype)
    places = targets.tokens.clamp(min=0)
    weight = targets.weight.to(logits.dtype)
    wanted = targets.model.to(logits.dtype) * (beta * weight)[..., None]  # T [N, n, D]
    wanted.scatter_add_(-1, places[..., None], ((1 - beta) * weight * known)[..., None])
    p = logits.sub_(logits.logsumexp(-1, keepdim=True)).exp_()
    at = places[..., None, None].expand(-1, -1, p.shape[2], 1)
    own = p.gather(-1, at)[..., 0].clamp(min=1e-30).log() * known[..., None]  # log p(x_s) [N, n, r]
    pi = (log_w[:, None] + own.cumsum(1) - own).softmax(-1)
    q = torch.einsum("nsa,nsax->nsx", pi, p).clamp_(min=1e-30)
    loss = -(wanted * q.log()).sum()
    ratio = wanted / q
    c = torch.einsum("nsx,nsax->nsa", ratio, p) * pi
    g = wanted.sum(-1)[..., None] * pi - c
    later = (g.flip(1).cumsum(1).flip(1) - g) * known[..., None]  # G
    # -T rho + (c - G) p = p (c - G - pi T / q)
    inner = (c - later)[..., None] - pi[..., None] * ratio[:, :, None]
    d_logits = p.mul_(inner)
    d_logits.scatter_add_(-1, at, later[..., None])
    return loss, d_logits, g.sum(1)


def reference_loss(v: Tensor, log_w: Tensor, unembedding: Tensor, targets: Targets, beta: float) -> Tensor:
    """The same by its definition, for tests: autograd differentiates it."""
    p = functional.linear(v, unembedding).log_softmax(-1)
    a, total = log_w, torch.zeros((), dtype=v.dtype)
    for s in range(v.shape[1]):
        q = (a.log_softmax(-1)[..., None] + p[:, s]).logsumexp(1)
        known = targets.tokens[:, s] >= 0
        place = targets.tokens[:, s].clamp(min=0)[:, None]
        text = torch.where(known, q.gather(1, place)[:, 0], 0)
        model = (targets.model[:, s] * q).sum(-1)
        total = total - (targets.weight[:, s] * (beta * model + (1 - beta) * text)).sum()
        own = p[:, s].gather(-1, place[:, None].expand(-1, p.shape[2], 1))[..., 0]
        a = a + torch.where(known[:, None], own, 0)
    return total


def balance(log_w: Tensor) -> Tensor:
    """r sum_alpha f_alpha mean(w_alpha), f the share of rows whose largest weight is alpha; 1 when all are used alike.

    The auxiliary loss of Switch transformers (arXiv 2101.03961, equation 4).
    """
    rank = log_w.shape[-1]
    share = functional.one_hot(log_w.argmax(-1), rank).to(log_w.dtype).mean(0)
    return rank * (share * log_w.exp().mean(0)).sum()
