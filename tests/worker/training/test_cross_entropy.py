"""The loss a few rows at a time equals PyTorch's own on all of them at once."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from worker.training import cross_entropy
from worker.training.cross_entropy import linear_cross_entropy


def inputs(*, bias: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(150, 16, requires_grad=True)
    weight = torch.randn(40, 16, requires_grad=True)
    return hidden, weight, torch.randn(40, requires_grad=True) if bias else None, torch.randint(40, (150,))


@pytest.mark.parametrize("bias", [False, True])
def test_loss_accuracy_and_gradients_are_those_of_pytorch(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "rows_of_logits", lambda *_: 64)  # 64, 64 and 22
    hidden, weight, offset, targets = inputs(bias=bias)
    leaves = [hidden, weight] + ([offset] if offset is not None else [])

    loss, correct = linear_cross_entropy(hidden, weight, offset, targets, dtype=torch.float32)
    ours = torch.autograd.grad(loss / 7, leaves)

    logits = functional.linear(hidden, weight, offset)
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    theirs = torch.autograd.grad(expected / 7, leaves)
    torch.testing.assert_close(loss, expected)
    assert correct.item() == (logits.argmax(-1) == targets).sum().item()
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_, theirs_)


def test_logits_that_would_overflow_an_exponential() -> None:
    hidden, weight, _, targets = inputs(bias=False)
    loss, _ = linear_cross_entropy(hidden * 1000, weight, None, targets, dtype=torch.float32)
    expected = functional.cross_entropy(hidden * 1000 @ weight.t(), targets, reduction="sum")
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, expected)


def test_a_frozen_head_gets_no_gradient_and_hidden_still_does() -> None:
    hidden, weight, _, targets = inputs(bias=False)
    loss, _ = linear_cross_entropy(hidden, weight.detach(), None, targets, dtype=torch.float32)
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_no_gradient_is_made_where_none_is_asked_for() -> None:
    hidden, weight, _, targets = inputs(bias=False)
    with torch.no_grad():
        loss, _ = linear_cross_entropy(hidden, weight, None, targets, dtype=torch.float32)
    assert not loss.requires_grad


def test_half_precision_is_close() -> None:
    hidden, weight, _, targets = inputs(bias=False)
    exact, _ = linear_cross_entropy(hidden, weight, None, targets, dtype=torch.float32)
    rough, _ = linear_cross_entropy(hidden, weight, None, targets, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    assert rough.item() != exact.item()


def test_onednn_meets_few_numbers_of_rows() -> None:
    seen: list[int] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.mkldnn._linear_pointwise.default:
                seen.append(len(args[0]))
            return func(*args, **kwargs or {})

    hidden, weight, _, targets = inputs(bias=False)
    with Watched():
        for rows in (1, 63, 64, 65, 150):
            linear_cross_entropy(hidden[:rows], weight, None, targets[:rows], dtype=torch.float32)
    assert seen == [64, 64, 64, 128, 192]


def test_of_equal_logits_the_first_is_the_guess() -> None:
    weight = torch.ones(40, 16)
    _, correct = linear_cross_entropy(torch.ones(3, 16), weight, None, torch.tensor([0, 1, 0]), dtype=torch.float32)
    assert correct.item() == 2
