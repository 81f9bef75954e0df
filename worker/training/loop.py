"""The training page: a run from its assignment to its end, told as facts.

`train` never calls upward: `list(train(assignment, lambda: False))` trains, and is its test.
"""

import math
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from core.failpoints import reach
from core.learning_rate import learning_rate
from core.tokens.batches import Window, windows_after
from worker.training import checkpoints, evaluation, sampling
from worker.training.assignment import Assignment
from worker.training.build import Learner
from worker.training.errors import is_out_of_memory
from worker.training.facts import Alive, Checkpoint, Epoch, Fact, Finished, Sample, Stopped, Warned
from worker.training.preparation import Run, prepare
from worker.training.pulse import Pulse
from worker.training.run_state import EpochSums, LossScale
from worker.training.telling import Telling
from worker.training.update import Outcome, update

R = TypeVar("R")


def train(
    assignment: Assignment, should_stop: Callable[[], bool], should_save: Callable[[], bool] = lambda: False
) -> Iterator[Fact]:
    """Train, from the beginning or from `assignment.resume_from`, and yield what happens.

    A resumed run goes on bit for bit as if it had never stopped. `should_save` is asked between updates, `should_stop`
    also while an epoch is closed, which is then left open for the run that goes on. Raises TrainingError where the run
    cannot go on, InvalidInput for data that cannot be read, OSError for a full disk.
    """
    saved_step = 0
    if assignment.resume_from is not None:
        resumed = checkpoints.read_state(assignment.resume_from)
        saved_step = resumed.step
        if resumed.finished:
            yield Finished(step=resumed.step, stopped_early=resumed.stopped_early)
            return

    run = yield from _unless_stopped(prepare(assignment), should_stop)
    if run is None:
        yield Stopped(step=saved_step)
        return

    pulse = Pulse()
    telling = Telling(run, pulse)
    for window in _windows_to_do(run):
        if window.step > run.state.step:
            rate = _learning_rate(run, window)
            outcome = _update(run, window, rate)
            reach("trainer updated")
            yield from telling.tell(window, outcome, rate)
        stopping, ordered = should_stop() and window.step < run.plan.steps, should_save()
        saving = stopping or ordered or _checkpoint_is_due(run, window)
        if window.ends_epoch or saving:
            yield from telling.rest()
            yield from _pause(run, window, pulse, should_stop, saving=saving, ordered=ordered)
            telling.restart_clock()
        if run.state.stopped_early:
            break
        if stopping or run.state.epoch_left_open:
            yield Stopped(step=window.step)
            return
    yield Finished(step=run.state.step, stopped_early=run.state.stopped_early)


def _unless_stopped(
    facts: Generator[Fact, None, R], should_stop: Callable[[], bool]
) -> Generator[Fact, None, R | None]:
    """Pass facts on and return what comes of them, or None where a stop order comes first."""
    while not should_stop():
        try:
            fact = next(facts)
        except StopIteration as end:
            result: R = end.value
            return result
        yield fact
    return None


def _windows_to_do(run: Run) -> Iterator[Window]:
    """Return the windows to come; where an epoch was left open, its last one, which is done, comes first."""
    training = run.spec.training
    return windows_after(
        run.state.step - run.state.epoch_left_open,
        run.training.lengths,
        batch_size=training.batch_size,
        accumulation=training.gradient_accumulation_steps,
        epochs=training.epochs,
        seed=training.seed,
    )


def _learning_rate(run: Run, window: Window) -> float:
    training, steps = run.spec.training, run.plan.steps
    return learning_rate(
        window.step - 1 - run.state.overflows,
        total=steps,
        warmup=training.warmup(steps),
        scheduler=training.lr_scheduler,
        base=training.learning_rate,
    )


def _update(run: Run, window: Window, rate: float) -> Outcome:
    """Do a window's work. It is a step even where its numbers turn out not to be finite: the schedule goes on."""
    outcome = update(
        run.learner,
        run.training,
        window.batches,
        learning_rate=rate,
        max_grad_norm=run.spec.training.max_grad_norm,
        budget=run.budget,
        dropout=(run.spec.training.seed, window.step),
    )
    run.state.step = window.step
    return outcome


def _pause(
    run: Run, window: Window, pulse: Pulse, should_stop: Callable[[], bool], *, saving: bool, ordered: bool
) -> Generator[Fact, None, None]:
    """Do what is due between two updates: close the epoch, then save, so that no resume tells an epoch twice."""
    closed = (yield from _close_epoch(run, window, pulse, should_stop)) if window.ends_epoch else None
    if closed:
        yield closed
        reach("trainer epoch told")
        yield from _samples(run, window, should_stop)
        loss, accuracy, validation_loss = closed.loss, closed.accuracy, closed.validation_loss
    else:
        loss, accuracy, validation_loss = run.state.sums.mean_loss, run.state.sums.accuracy, None
    if saving or run.state.stopped_early or run.state.epoch_left_open:
        run.state.fitting_positions = run.budget.positions
        run.state.loss_scale = _loss_scale(run.learner)
        yield Checkpoint(
            epoch=window.epoch,
            step=window.step,
            path=checkpoints.save(run.output_dir, run.learner, run.tokenizer, run.state),
            loss=loss,
            accuracy=accuracy,
            validation_loss=validation_loss,
            ordered=ordered,
        )


def _checkpoint_is_due(run: Run, window: Window) -> bool:
    wanted = run.spec.checkpoints
    if window.step == run.plan.steps:
        return True
    if window.ends_epoch and window.epoch % wanted.every_epochs == 0:
        return True
    return wanted.every_steps is not None and window.step % wanted.every_steps == 0


def _close_epoch(
    run: Run, window: Window, pulse: Pulse, should_stop: Callable[[], bool]
) -> Generator[Alive | Warned, None, Epoch | None]:
    """Evaluate, and start the sums of the next epoch; None where a stop order comes first, and leaves this one open."""
    sums, fitting = run.state.sums, run.budget.positions
    validation_loss = validation_accuracy = None
    run.state.epoch_left_open = _takes_long_to_close(run) and should_stop()
    if run.state.epoch_left_open:
        return None
    if run.validation is not None:
        evaluating = evaluation.evaluate(
            run.learner, run.validation, batch_size=run.spec.training.batch_size, budget=run.budget
        )
        evaluated = yield from _with_pulse(evaluating, window, pulse, should_stop)
        if evaluated is None:
            run.state.epoch_left_open = True
            return None
        validation_loss, validation_accuracy = evaluated
        if run.budget.positions != fitting:
            yield Warned(
                code="batch_split_out_of_memory",
                message=f"The validation after step {window.step} ran out of memory and was done again with at most "
                f"{run.budget.positions} tokens at once: its numbers are the same.",
            )
    run.state.sums = EpochSums()
    _heed_patience(run, validation_loss)
    return Epoch(
        epoch=window.epoch,
        step=window.step,
        loss=sums.mean_loss,
        accuracy=sums.accuracy,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        perplexity=_perplexity(sums.mean_loss if validation_loss is None else validation_loss),
        seconds=sums.seconds,
    )


def _takes_long_to_close(run: Run) -> bool:
    return run.validation is not None or bool(run.tokenizer and run.spec.samples.prompts)


def _heed_patience(run: Run, validation_loss: float | None) -> None:
    """Stop early where the validation loss has not got better for long enough."""
    training = run.spec.training
    if training.early_stopping_patience is None or validation_loss is None:
        return
    run.state.validation.take_in(validation_loss, threshold=training.early_stopping_threshold)
    run.state.stopped_early = run.state.validation.epochs_no_better >= training.early_stopping_patience


def _loss_scale(learner: Learner) -> LossScale | None:
    if learner.scaler is None:
        return None
    saved = learner.scaler.state_dict()
    return LossScale(scale=saved["scale"], good_windows=saved["_growth_tracker"])


def _with_pulse(
    work: Generator[None, None, R], window: Window, pulse: Pulse, should_stop: Callable[[], bool]
) -> Generator[Alive, None, R | None]:
    """Do work to its end, and show between its pieces that the run is alive; None where a stop order comes first."""
    while not should_stop():
        try:
            next(work)
        except StopIteration as end:
            result: R = end.value
            return result
        yield from pulse.beat(epoch=window.epoch, step=window.step)
    work.close()
    return None


def _perplexity(loss: float | None) -> float | None:
    # Past 700 the exponential is beyond a float; no model that learns comes near.
    return math.exp(loss) if loss is not None and loss < 700 else None


def _samples(run: Run, window: Window, should_stop: Callable[[], bool]) -> Iterator[Sample | Warned]:
    """Tell what the model makes of the prompts: no part of training, which goes on where they cannot be continued."""
    if run.tokenizer is None or not run.spec.samples.prompts:
        return
    checkpoints.require_finite(run.learner, run.state)
    told, prompts = 0, len(run.spec.samples.prompts)
    reason = "the run was told to stop"
    try:
        for prompt, text in sampling.write(
            run.learner,
            run.tokenizer,
            run.spec.samples,
            seed=run.spec.training.seed,
            epoch=window.epoch,
            should_stop=should_stop,
        ):
            yield Sample(epoch=window.epoch, prompt=prompt, text=text)
            told += 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = "they do not fit into memory: lower samples.max_new_tokens"
    if told < prompts:
        yield Warned(
            code="samples_left_out",
            message=f"Of the {prompts} samples after step {window.step} {prompts - told} were left out: {reason}.",
        )
