"""The loss of the last layer, a piece of its rows at a time: the logits of a large batch never exist at once.

With a vocabulary of 50,000 they would be the largest tensor of a step, three times over (logits, probabilities, and
their gradient). As in Liger Kernel's fused linear cross-entropy (arXiv:2410.10989) the gradients are made on the way
forward, while a piece of the logits is at hand.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.pieces import rows_of_logits

# oneDNN makes and keeps a program for each number of rows that it meets: these are few.
_ROWS_TOGETHER = 64


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross-entropies of `hidden` [N, D] @ `weight` [V, D].T + `bias` [V] against `targets` [N].

    Also returns how many targets have the largest logit. Matrix products are computed in `dtype`, the rest in float32;
    both results are scalars on the device.
    """
    loss, correct = _LinearCrossEntropy.apply(hidden, weight, bias, targets, dtype)  # type: ignore[no-untyped-call]
    return loss, correct


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - as autograd calls it
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        for_hidden, for_weight, for_bias, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if for_hidden else None
        grad_weight = torch.zeros_like(weight) if for_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and for_bias else None
        loss = torch.zeros((), device=hidden.device)
        correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        computing = weight.to(dtype)
        rows = rows_of_logits(len(weight), hidden.device.type)
        for start in range(0, len(hidden), rows):
            piece = slice(start, start + rows)
            inputs, labels = hidden[piece].to(dtype), targets[piece]
            logits = _project(inputs, computing, None if bias is None else bias.to(dtype)).float()
            guess = _argmax(logits)[:, None]
            best = logits.gather(1, guess)
            correct += (guess.squeeze(1) == labels).sum()
            wanted = logits.gather(1, labels[:, None])
            probabilities = logits.softmax(dim=-1)
            # The probability of the best is one over the sum of exp(logit - best).
            loss += (best - wanted - probabilities.gather(1, guess).log()).sum()
            if grad_hidden is None and grad_weight is None and grad_bias is None:
                continue
            # Softmax minus one at the label.
            gradient = probabilities
            gradient[torch.arange(len(labels), device=hidden.device), labels] -= 1.0
            gradient = gradient.to(dtype)
            if grad_hidden is not None:
                grad_hidden[piece] = gradient @ computing
            if grad_weight is not None:
                _add_product(grad_weight, gradient.t(), inputs)
            if grad_bias is not None:
                grad_bias += gradient.sum(dim=0)
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_loss: Tensor, _of_correct: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if gradient is None else gradient.mul_(of_loss) for gradient in gradients]
        return (*scaled, None, None)


def _project(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `inputs` [N, D] @ `weight` [V, D].T + `bias` [V]."""
    on_cpu = inputs.device.type == "cpu" and inputs.dtype == torch.float32
    if not (on_cpu and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return functional.linear(inputs, weight, bias)
    # oneDNN's product, which compiled models call like this. Into so many columns it is faster than the BLAS.
    padded = functional.pad(inputs, (0, 0, 0, -len(inputs) % _ROWS_TOGETHER))
    product: Tensor = torch.ops.mkldnn._linear_pointwise(padded, weight, bias, "none", [], "")
    return product[: len(inputs)]


def _argmax(logits: Tensor) -> Tensor:
    """Return the place of the largest of each row, the first of them if it is there twice."""
    # On the CPU torch looks at one number at a time, NumPy at eight.
    return torch.from_numpy(logits.numpy().argmax(axis=1)) if logits.device.type == "cpu" else logits.argmax(dim=1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
