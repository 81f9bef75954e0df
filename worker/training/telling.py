"""From computed windows to facts. Numbers are read back late enough that the device never waits for the reader."""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from core.tokens.batches import Window
from worker.training.errors import Diverged
from worker.training.facts import Alive, Batch, Warned
from worker.training.preparation import Run
from worker.training.pulse import Pulse
from worker.training.update import Numbers, Outcome

# So many windows without a finite gradient are no accident any more.
_DISCARDED_IN_A_ROW = 5


@dataclass(frozen=True)
class _Computed:
    window: Window
    outcome: Outcome
    learning_rate: float


class Telling:
    """The facts of each window, in order: one window late on a GPU, which so always has work queued; else at once."""

    def __init__(self, run: Run, pulse: Pulse) -> None:
        self._run, self._pulse = run, pulse
        # In half precision the next window's learning rate depends on whether this one was applied.
        self._late = 1 if run.learner.device.type == "cuda" and run.learner.scaler is None else 0
        self._waiting: deque[_Computed] = deque()
        self._since = time.perf_counter()

    def restart_clock(self) -> None:
        """Leave what happened until now out of the speed."""
        self._since = time.perf_counter()

    def tell(self, window: Window, outcome: Outcome, rate: float) -> Iterator[Batch | Alive | Warned]:
        """Take in a window and tell of those that are due. Raises Diverged after too many discarded in a row."""
        self._waiting.append(_Computed(window, outcome, rate))
        while len(self._waiting) > self._late:
            yield from self._tell(self._waiting.popleft())

    def rest(self) -> Iterator[Batch | Alive | Warned]:
        """Tell of every window taken in so far."""
        while self._waiting:
            yield from self._tell(self._waiting.popleft())

    def _tell(self, computed: _Computed) -> Iterator[Batch | Alive | Warned]:
        numbers = computed.outcome.read()
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        window, state = computed.window, self._run.state
        tokens = [int(self._run.training.loss_tokens[batch].sum()) for batch in window.batches]
        for positions in computed.outcome.splits:
            yield Warned(
                code="batch_split_out_of_memory",
                message=f"Step {window.step} ran out of memory and was done again with at most {positions} tokens "
                "at once: the gradient is the same, only slower to compute.",
            )
        if numbers.applied:
            state.discarded_in_a_row = 0
            state.sums.loss += sum(numbers.losses)
            state.sums.correct += sum(numbers.correct)
            state.sums.tokens += sum(tokens)
        elif self._overflowed(numbers):
            state.overflows += 1
        else:
            state.discarded_in_a_row += 1
            yield Warned(
                code="window_skipped_non_finite",
                message=f"Step {window.step} gave a loss or gradient that is not finite: it was not applied.",
            )
        state.sums.seconds += seconds
        if window.step % self._run.spec.training.log_every == 0 or window.step == state.steps:
            yield from _batch_facts(computed, numbers, tokens, seconds)
        else:
            yield from self._pulse.beat(epoch=window.epoch, step=window.step)
        self._require_progress(window)

    def _require_progress(self, window: Window) -> None:
        state = self._run.state
        if state.discarded_in_a_row >= _DISCARDED_IN_A_ROW:
            raise Diverged(
                f"{state.discarded_in_a_row} windows in a row, up to step {window.step}, had no finite gradient.",
                "Lower training.learning_rate, or give it a longer warmup; the last checkpoint is still good.",
            )
        if state.overflows + state.discarded_in_a_row == state.steps:
            raise Diverged(
                f"None of the run's {state.steps} updates had a finite gradient: the weights are as they were.",
                'With training.precision "fp16" the first updates look for the scale of the gradients: train for more '
                'of them, or with "bf16" or "fp32".'
                if state.overflows
                else "Lower training.learning_rate, or look for what is odd in the data.",
            )

    def _overflowed(self, numbers: Numbers) -> bool:
        """Tell whether only the gradient's scale was too large, which has fallen since and will fit."""
        scaler = self._run.learner.scaler
        return scaler is not None and scaler.get_scale() >= 1.0 and all(map(math.isfinite, numbers.losses))


def _batch_facts(computed: _Computed, numbers: Numbers, tokens: list[int], seconds: float) -> Iterator[Batch]:
    window, last = computed.window, len(tokens) - 1
    for i, (loss, correct, count) in enumerate(zip(numbers.losses, numbers.correct, tokens, strict=True)):
        finite = math.isfinite(loss)
        yield Batch(
            epoch=window.epoch,
            batch=window.first_batch + i,
            step=window.step,
            loss=loss / count if finite else None,
            accuracy=correct / count if finite else None,
            learning_rate=computed.learning_rate,
            tokens=count,
            grad_norm=numbers.grad_norm if i == last and numbers.applied else None,
            tokens_per_second=sum(tokens) / seconds if i == last else None,
        )
