"""The KL divergence of two next-token distributions from their hidden states, without keeping logits.

For 1,024 tokens and 49,152 entries of a vocabulary each copy of the logits takes 200 MB, and autograd would keep
several. Here they are made for a few tokens at a time, and the gradient with them: ∂KL/∂h = (p_student - p_teacher) W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Tokens whose logits are there at once.
CHUNK = 256


class HeadDivergence(torch.autograd.Function):
    """KL(teacher || student) in nats per token, summed over the vocabulary. The heads' weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, student_head: Tensor, teacher_head: Tensor) -> Tensor:
        """The mean over tokens.

        Args:
            student, teacher: hidden states behind the last norm, [N, hidden].
            student_head, teacher_head: [V, hidden]; products are made in their type, everything else in at least
                float32.
        """
        compute = torch.promote_types(student.dtype, torch.float32)
        gradient, total = torch.empty_like(student), student.new_zeros((), dtype=compute)
        for start in range(0, len(student), CHUNK):
            rows = slice(start, start + CHUNK)
            found = functional.linear(student[rows].to(student_head.dtype), student_head).to(compute)
            wanted = functional.linear(teacher[rows].to(teacher_head.dtype), teacher_head).to(compute)
            found, wanted = found.log_softmax(-1), wanted.log_softmax(-1)
            expected = wanted.exp()
            total += torch.dot(expected.flatten(), (wanted - found).flatten())
            difference = found.exp_().sub_(expected).to(student_head.dtype)
            gradient[rows] = torch.matmul(difference, student_head).to(gradient.dtype)
        ctx.save_for_backward(gradient / len(student))
        return total / len(student)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """With respect to the student's hidden states."""
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None, None
