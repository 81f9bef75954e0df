"""One update: the gradient is that of the window's tokens, whatever happens on the way."""

from typing import Any

import numpy as np
import pytest
import torch

from core.tokens.sequences import Sequences
from tests.worker.training.tiny import GPT2, NO_DROPOUT, learner, ragged_rows, sequences
from worker.training.build import Learner
from worker.training.errors import DoesNotFit
from worker.training.update import MemoryBudget, Outcome, update

NO_CLIP = 1e9


def apply(
    tiny: Learner, cut: Sequences, window: list[list[int]], *, budget: MemoryBudget | None = None, **settings: Any
) -> Outcome:
    defaults = {"learning_rate": 1.0, "max_grad_norm": NO_CLIP, "dropout": (0, 1)}
    batches = [np.array(batch) for batch in window]
    return update(tiny, cut, batches, budget=budget or MemoryBudget(), **defaults | settings)


def with_sgd(config: dict[str, Any] | None = None) -> Learner:
    """A model under plain descent, where the change of the weights is the very gradient that was applied."""
    tiny = learner(config)
    descent = torch.optim.SGD(tiny.model.parameters(), lr=1.0, fused=True)
    return Learner(tiny.model, tiny.token_loss, descent, tiny.device)


def weights(tiny: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in tiny.model.parameters()])


def gradient(cut: Sequences, window: list[list[int]], config: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The change that an update with learning rate 1 makes: minus the applied gradient."""
    tiny = with_sgd(config)
    before = weights(tiny)
    apply(tiny, cut, window, **settings)
    return before - weights(tiny)


def limit_rows(tiny: Learner, rows: int) -> list[int]:
    """Give the model a device on which at most `rows` rows fit; returns the row counts it was asked for."""
    seen: list[int] = []
    forward = tiny.model.base_model.forward

    def limited(input_ids: torch.Tensor, **rest: Any) -> Any:
        seen.append(len(input_ids))
        if len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(input_ids=input_ids, **rest)

    tiny.model.base_model.forward = limited
    return seen


def poison(tiny: Learner, value: float) -> None:
    """Make every gradient that flows back into the embeddings hold `value`."""
    tiny.model.get_input_embeddings().weight.register_hook(lambda grad: torch.full_like(grad, value))


@pytest.mark.parametrize(
    "window", [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1], [2, 3], [4, 5], [6, 7]], [[i] for i in range(8)]]
)
def test_a_windows_gradient_does_not_depend_on_its_cut_into_batches(window: list[list[int]]) -> None:
    cut = sequences(ragged_rows(8, longest=40))
    whole = gradient(cut, [list(range(8))])
    torch.testing.assert_close(gradient(cut, window), whole, rtol=0, atol=1e-6)


def test_it_is_the_gradient_of_the_mean_over_all_tokens() -> None:
    cut = sequences(ragged_rows(8, longest=40))
    tiny = with_sgd()
    total, _ = tiny.token_loss(cut, np.arange(8))
    (total / cut.loss_tokens.sum()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in tiny.model.parameters()])
    torch.testing.assert_close(gradient(cut, [[0, 1, 2, 3, 4], [5, 6, 7]]), expected, rtol=0, atol=1e-6)


def test_the_windows_gradient_is_clipped_once() -> None:
    cut = sequences(ragged_rows(8))
    window = [[0, 1], [2, 3, 4], [5, 6, 7]]
    whole = gradient(cut, window)
    clipped = gradient(cut, window, max_grad_norm=0.1)
    assert whole.norm() > 0.1
    torch.testing.assert_close(clipped, whole * (0.1 / whole.norm()), rtol=1e-4, atol=1e-7)


def test_the_numbers_of_a_window() -> None:
    cut, tiny = sequences(ragged_rows(5)), learner()
    expected = [tiny.token_loss(cut, np.array(batch)) for batch in ([0, 1, 2], [3, 4])]
    numbers = apply(tiny, cut, [[0, 1, 2], [3, 4]]).read()
    assert numbers.losses == pytest.approx([loss.item() for loss, _ in expected])
    assert numbers.correct == [correct.item() for _, correct in expected]
    assert numbers.grad_norm == pytest.approx(gradient(cut, [[0, 1, 2], [3, 4]]).norm().item(), rel=1e-4)
    assert numbers.applied


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_touches_nothing(value: float) -> None:
    cut, tiny = sequences(ragged_rows(4)), learner()
    apply(tiny, cut, [[0, 1]])
    before = weights(tiny)
    moments = [tensor.clone() for state in tiny.optimizer.state.values() for tensor in state.values()]
    poison(tiny, value)
    outcome = apply(tiny, cut, [[2, 3]])
    assert not outcome.read().applied
    assert torch.equal(before, weights(tiny))
    after = [tensor for state in tiny.optimizer.state.values() for tensor in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert all(parameter.grad is None for parameter in tiny.model.parameters())


@pytest.mark.parametrize("fitting", [1, 3, 4])
def test_out_of_memory_is_done_again_in_halves_with_the_same_gradient(fitting: int) -> None:
    cut = sequences(ragged_rows(12))
    window = [list(range(8)), [8, 9, 10, 11]]
    tiny, budget = with_sgd(), MemoryBudget()
    before, seen = weights(tiny), limit_rows(tiny, fitting)
    outcome = apply(tiny, cut, window, budget=budget)
    torch.testing.assert_close(before - weights(tiny), gradient(cut, window), rtol=0, atol=1e-6)
    assert len(outcome.splits) == {4: 1, 3: 2, 1: 3}[fitting]
    whole = apply(learner(), cut, window).read()
    assert outcome.read().losses == pytest.approx(whole.losses)
    assert outcome.read().correct == whole.correct

    seen.clear()
    assert not apply(tiny, cut, window, budget=budget).splits, "what fits is remembered"
    assert max(seen) <= fitting


def test_out_of_memory_in_a_later_batch_drops_the_gradients_made_before() -> None:
    cut = sequences(ragged_rows(6))
    tiny = with_sgd()
    before = weights(tiny)
    limit_rows(tiny, 2)
    apply(tiny, cut, [[0], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(before - weights(tiny), gradient(cut, [[0], [1, 2, 3, 4, 5]]), rtol=0, atol=1e-6)


def test_a_single_row_that_does_not_fit_ends_the_run_with_a_hint() -> None:
    tiny = learner()
    limit_rows(tiny, 0)
    with pytest.raises(DoesNotFit) as error:
        apply(tiny, sequences(ragged_rows(4)), [[0, 1, 2, 3]])
    assert error.value.code == "out_of_memory"
    assert "sequence.max_length" in error.value.hint


def test_other_errors_are_not_taken_for_out_of_memory() -> None:
    tiny = learner()

    def broken(**_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    tiny.model.base_model.forward = broken
    with pytest.raises(RuntimeError, match="shapes"):
        apply(tiny, sequences(ragged_rows(2)), [[0, 1]])


def test_dropout_follows_from_seed_and_step_alone() -> None:
    cut = sequences(ragged_rows(4))

    def after(seed: int, step: int) -> torch.Tensor:
        torch.rand(np.random.default_rng().integers(1, 100))  # samples and evaluation use the same generator
        return gradient(cut, [[0, 1], [2, 3]], GPT2, dropout=(seed, step))

    first = after(1, 1)
    assert torch.equal(first, after(1, 1))
    assert not torch.equal(first, after(1, 2))
    assert not torch.equal(first, after(2, 1))
    assert not torch.equal(first, gradient(cut, [[0, 1], [2, 3]], GPT2 | NO_DROPOUT))
