"""The traps of a training loop: those that have no test elsewhere, and where each of the others has its own.

Of RELIABILITY.md's "Loop traps":
- windows with ragged lengths: test_update::test_a_windows_gradient_does_not_depend_on_its_cut_into_batches,
  test_update::test_it_is_the_gradient_of_the_mean_over_all_tokens
- clip: test_update::test_the_windows_gradient_is_clipped_once
- 7 batches or 3, accumulation 4: test_batches::test_the_last_window_of_an_epoch_is_what_is_left,
  here::test_as_many_updates_as_windows
- learning rate: test_learning_rate::test_equals_transformers_at_every_update,
  test_learning_rate::test_first_end_of_warmup_and_last
- every label ignored: test_sequences::test_sequences_whose_labels_are_all_ignored_are_left_out_and_counted,
  test_corpus::test_labels_all_ignored_are_counted_and_never_give_a_nan,
  here::test_validation_without_a_label_gives_no_loss_and_a_warning
- one NaN gradient: test_update::test_a_gradient_that_is_not_finite_touches_nothing,
  test_loop::test_five_in_a_row_have_diverged_and_the_last_checkpoint_stays,
  test_resume::test_discarded_windows_are_counted_over_a_resume,
  here::test_a_loss_that_is_not_finite_touches_nothing, here::test_a_discarded_window_is_no_update,
  here::test_no_checkpoint_holds_a_weight_that_is_not_finite
- out of memory: test_update::test_out_of_memory_is_done_again_in_halves_with_the_same_gradient,
  test_update::test_out_of_memory_in_a_later_batch_drops_the_gradients_made_before,
  test_loop::test_running_out_of_memory_is_told_once, test_resume::test_what_fits_is_remembered_over_a_resume,
  test_cuda::test_a_full_memory_splits_the_batch_and_keeps_the_gradient,
  here::test_nothing_of_the_first_try_is_alive_in_the_second, here::test_wherever_memory_runs_out_nothing_is_skipped,
  here::test_a_row_that_does_not_fit_ends_the_run_and_says_how_long_it_is,
  here::test_a_validation_that_does_not_fit_is_done_in_pieces_with_the_same_numbers
- NaN in an event: test_loop::test_a_window_that_is_not_finite_is_skipped_with_a_warning

Of DESIGN.md's table, what is not among them:
- pickled data: test_build::test_weights_in_a_pickle_are_refused,
  test_build::test_a_pickle_beside_safetensors_is_not_opened, and of datasets core/test_dataset_files
- the whole of it, loss, norm, clipping and last windows: test_against_transformers::test_every_update_is_the_trainers
- `drop_last`, zero batches: test_batches::test_every_row_is_in_exactly_one_batch,
  test_loop::test_epoch_numbers_are_over_all_its_tokens, test_corpus::test_what_cannot_be_trained_on_is_refused
- waiting for the device, padding: test_cuda::test_no_update_waits_for_the_device,
  test_batches::test_padding_is_under_five_percent, here::test_an_update_reads_nothing_back,
  here::test_a_gpu_has_its_next_window_before_the_last_one_is_read
- warmup longer than the run: test_corpus::test_the_plan_warns
- no resume: test_resume, test_killed_anywhere
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from core.tokens.batches import Window
from core.tokens.sequences import Sequences
from tests.worker.training.tiny import (
    GPT2,
    NO_DROPOUT,
    assignment,
    last_checkpoint,
    learner,
    of,
    prepared,
    ragged_rows,
    run,
    sequences,
    write_rows,
)
from worker.training.build import Learner
from worker.training.errors import Diverged, DoesNotFit, as_failed
from worker.training.facts import Batch, Checkpoint, Epoch, Planned, Warned
from worker.training.loop import train
from worker.training.preparation import prepare
from worker.training.pulse import Pulse
from worker.training.telling import Telling
from worker.training.token_loss import TokenLoss
from worker.training.update import MemoryBudget, Outcome, update

TokenLossCall = Callable[[TokenLoss, Sequences, Any], tuple[torch.Tensor, torch.Tensor]]


def apply(tiny: Learner, cut: Sequences, window: list[list[int]]) -> Outcome:
    batches = [np.array(batch) for batch in window]
    settings: dict[str, Any] = {"learning_rate": 0.1, "max_grad_norm": 1.0, "dropout": (0, 1)}
    return update(tiny, cut, batches, budget=MemoryBudget(), **settings)


def weights(tiny: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in tiny.model.parameters()])


def instead_of_token_loss(monkeypatch: pytest.MonkeyPatch, changed: Callable[[TokenLossCall], TokenLossCall]) -> None:
    monkeypatch.setattr(TokenLoss, "__call__", changed(TokenLoss.__call__))


def updates_in(checkpoint: Path) -> int:
    """How many updates the optimizer has made, by its own count."""
    counts = {
        int(tensor)
        for name, tensor in load_file(checkpoint / "state" / "optimizer.safetensors").items()
        if name.startswith("step/")
    }
    [count] = counts
    return count


@pytest.mark.parametrize(("batches", "updates"), [(7, 2), (3, 1), (8, 2)])
def test_as_many_updates_as_windows(tmp_path: Path, batches: int, updates: int) -> None:
    training = {"epochs": 2, "batch_size": 2, "gradient_accumulation_steps": 4}
    facts = run(assignment(tmp_path, ragged_rows(2 * batches), training=training))
    assert [updates_in(checkpoint.path) for checkpoint in of(facts, Checkpoint)] == [updates, 2 * updates]


def test_validation_without_a_label_gives_no_loss_and_a_warning(tmp_path: Path) -> None:
    silent = {"input_ids": [3, 4, 5], "labels": [3, -100, -100]}
    job = assignment(tmp_path, ragged_rows(4), validation={"dataset": "other"}, training={"epochs": 1})
    job = job.model_copy(update={"validation_dataset": write_rows(tmp_path / "v.jsonl", [silent, silent])})
    facts = run(job)
    [plan], [epoch] = of(facts, Planned), of(facts, Epoch)
    assert any("no validation loss" in warning for warning in plan.warnings)
    assert (epoch.validation_loss, epoch.validation_accuracy) == (None, None)
    assert epoch.perplexity is not None


def test_a_loss_that_is_not_finite_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # As where a sum overflows on the way forward only: its gradient, that of the mean, is finite.
    cut, tiny = sequences(ragged_rows(4)), learner()
    apply(tiny, cut, [[0, 1]])
    before = weights(tiny)

    def overflowing(token_loss: TokenLossCall) -> TokenLossCall:
        def call(self: TokenLoss, data: Sequences, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
            loss, correct = token_loss(self, data, rows)
            return (loss + float("inf") if 3 in rows else loss), correct

        return call

    instead_of_token_loss(monkeypatch, overflowing)
    numbers = apply(tiny, cut, [[2], [3]]).read()
    assert np.isfinite(numbers.grad_norm)
    assert not numbers.applied
    assert torch.equal(weights(tiny), before)


def test_a_discarded_window_is_no_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def poisoned_once(token_loss: TokenLossCall) -> TokenLossCall:
        def call(self: TokenLoss, data: Sequences, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
            calls.append(len(rows))
            loss, correct = token_loss(self, data, rows)
            # The fourth batch is the second of the second window.
            return (loss * float("nan") if len(calls) == 4 else loss), correct

        return call

    instead_of_token_loss(monkeypatch, poisoned_once)
    training = {"epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 2}
    facts = run(assignment(tmp_path, ragged_rows(12), training=training))
    batches, [epoch], [plan] = of(facts, Batch), of(facts, Epoch), of(facts, Planned)
    assert [batch.step for batch in batches] == [1, 1, 2, 2, 3, 3]
    assert [batch.loss is None for batch in batches] == [False, False, False, True, False, False]
    assert [warned.code for warned in of(facts, Warned)] == ["window_skipped_non_finite"]
    assert updates_in(last_checkpoint(facts)) == plan.steps - 1 == 2
    applied = [batch for batch in batches if batch.step != 2]
    tokens = sum(batch.tokens for batch in applied)
    assert epoch.loss == pytest.approx(sum(batch.loss * batch.tokens for batch in applied) / tokens)


def test_no_checkpoint_holds_a_weight_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step
    made: list[int] = []

    def broken(self: torch.optim.AdamW, *rest: Any) -> Any:
        result = step(self, *rest)
        made.append(1)
        if len(made) == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][0][0, 0] = float("inf")
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    job = assignment(tmp_path, ragged_rows(8), checkpoints={"every_steps": 1}, training={"batch_size": 2})
    facts: list[Any] = []
    with pytest.raises(Diverged, match="After step 3"):
        facts.extend(train(job, lambda: False))
    kept = sorted(job.output_dir.iterdir())
    assert [folder.name for folder in kept] == ["step-00000001", "step-00000002"]
    for folder in kept:
        assert all(tensor.isfinite().all() for tensor in load_file(folder / "model" / "model.safetensors").values())


def out_of_memory_over(rows: int, error: Exception, *, backward: bool) -> Callable[[TokenLossCall], TokenLossCall]:
    """A device whose memory holds so many rows at once, and runs out of it on the way forward, or only back."""

    def fail(_: torch.Tensor) -> None:
        raise error

    def limited(token_loss: TokenLossCall) -> TokenLossCall:
        def call(self: TokenLoss, data: Sequences, asked: Any) -> tuple[torch.Tensor, torch.Tensor]:
            if len(asked) > rows and not backward:
                raise error
            loss, correct = token_loss(self, data, asked)
            if len(asked) > rows:
                loss = loss * 1.0
                loss.register_hook(fail)
            return loss, correct

        return call

    return limited


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_wherever_memory_runs_out_nothing_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, backward: bool
) -> None:
    training = {"epochs": 2, "batch_size": 6, "gradient_accumulation_steps": 2, "adam_epsilon": 1e-5}
    job = assignment(tmp_path, ragged_rows(21), model={"config": GPT2 | NO_DROPOUT}, training=training)
    whole = run(job)
    instead_of_token_loss(monkeypatch, out_of_memory_over(2, error, backward=backward))
    facts = run(job.model_copy(update={"output_dir": tmp_path / "pieces"}))

    assert {warned.code for warned in of(facts, Warned)} == {"batch_split_out_of_memory"}
    [plan] = of(facts, Planned)
    for epoch in (1, 2):
        assert sum(batch.tokens for batch in of(facts, Batch) if batch.epoch == epoch) == plan.tokens_per_epoch
    for ours, theirs in zip(of(facts, Batch), of(whole, Batch), strict=True):
        assert (ours.batch, ours.tokens, ours.accuracy) == (theirs.batch, theirs.tokens, theirs.accuracy)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert (ours.grad_norm or 0.0) == pytest.approx(theirs.grad_norm or 0.0, rel=1e-5)
    assert updates_in(last_checkpoint(facts)) == plan.steps


def test_an_optimizer_that_does_not_fit_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(DoesNotFit, match="two numbers for each weight") as raised:
        run(assignment(tmp_path, ragged_rows(8)))
    assert "model.lora" in as_failed(raised.value).hint


def test_nothing_of_the_first_try_is_alive_in_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    cut, tiny = sequences(ragged_rows(8)), learner()
    parameters = list(tiny.model.parameters())
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def full_once(token_loss: TokenLossCall) -> TokenLossCall:
        def call(self: TokenLoss, data: Sequences, rows: Any) -> tuple[torch.Tensor, torch.Tensor]:
            if held:
                alive.append(held[0]() is not None or any(p.grad is not None for p in parameters))
            loss, correct = token_loss(self, data, rows)
            if len(rows) == 6:
                held.append(weakref.ref(loss))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return loss, correct

        return call

    instead_of_token_loss(monkeypatch, full_once)
    apply(tiny, cut, [[6, 7], [0, 1, 2, 3, 4, 5]])
    assert not alive[0], "the traceback's tensors, or the gradients of the batch before, take memory"
    assert len(held) == 1


def test_a_row_that_does_not_fit_ends_the_run_and_says_how_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    instead_of_token_loss(monkeypatch, out_of_memory_over(0, error, backward=False))
    with pytest.raises(DoesNotFit) as raised:
        run(assignment(tmp_path, [[1, 2, 3, 4, 5, 6, 7]] * 4, training={"batch_size": 4}))
    failed = as_failed(raised.value)
    assert failed.code == "out_of_memory"
    assert "A single row of 7 tokens" in failed.message
    assert "sequence.max_length" in failed.hint
    assert not list((tmp_path / "out").iterdir())


class Reads(TorchDispatchMode):
    """Counts what needs a tensor's value on the host, and so would wait for a GPU."""

    NEEDS_VALUES = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in self.NEEDS_VALUES:
            self.found.append(func._schema.name)
        return func(*args, **kwargs or {})


def test_an_update_reads_nothing_back() -> None:
    rows = ragged_rows(6)
    cut, tiny = sequences(rows, labels=[[-100, *row[1:]] for row in rows]), learner(GPT2)
    with Reads() as reads:
        apply(tiny, cut, [[0, 1], [2, 3], [4, 5]])
    assert reads.found == []
    with Reads() as reads:
        torch.ones(1).item()
    assert reads.found == ["aten::_local_scalar_dense"], "the test would see one"


def test_a_gpu_has_its_next_window_before_the_last_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(prepare(assignment(tmp_path, ragged_rows(8), training={"batch_size": 2})))
    read: list[int] = []
    outcomes = [apply(ready.learner, ready.training, [[step]]) for step in range(3)]
    steps = {id(outcome): step for step, outcome in enumerate(outcomes, start=1)}
    reading = Outcome.read
    monkeypatch.setattr(Outcome, "read", lambda self: (read.append(steps[id(self)]), reading(self))[1])
    on_gpu = replace(ready, learner=replace(ready.learner, device=torch.device("cuda")))
    telling = Telling(on_gpu, Pulse())
    told = []
    for step, outcome in enumerate(outcomes, start=1):
        window = Window(step=step, epoch=1, first_batch=step, batches=[np.array([step])], ends_epoch=False)
        told.append([fact.step for fact in of(list(telling.tell(window, outcome, 0.1)), Batch)])
    assert told == [[], [1], [2]]
    assert read == [1, 2]
    assert [fact.step for fact in of(list(telling.rest()), Batch)] == [3]


def test_a_validation_that_does_not_fit_is_done_in_pieces_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: dict[str, Any] = {
        "validation": {"fraction": 0.4},
        "training": {"epochs": 2, "batch_size": 8},
        "model": {"config": GPT2 | NO_DROPOUT},
    }
    whole = run(assignment(tmp_path / "whole", ragged_rows(40), **spec))
    token_loss = TokenLoss.__call__

    def cramped(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        # Training has the room, since its batches were shorter, say; the validation of more than three rows has not.
        if len(rows) > 3 and not torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return token_loss(self, data, rows)

    monkeypatch.setattr(TokenLoss, "__call__", cramped)
    facts = run(assignment(tmp_path / "cramped", ragged_rows(40), **spec))
    warnings = of(facts, Warned)
    assert {warning.code for warning in warnings} == {"batch_split_out_of_memory"}
    assert "The validation after step" in warnings[0].message
    for split, undivided in zip(of(facts, Epoch), of(whole, Epoch), strict=True):
        assert split.validation_loss == pytest.approx(undivided.validation_loss, rel=1e-5)
        assert split.validation_accuracy == undivided.validation_accuracy


def test_a_validation_row_that_does_not_fit_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_loss = TokenLoss.__call__

    def full(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        if not torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return token_loss(self, data, rows)

    monkeypatch.setattr(TokenLoss, "__call__", full)
    with pytest.raises(DoesNotFit, match="A single row of"):
        run(assignment(tmp_path, ragged_rows(20), validation={"fraction": 0.4}))
