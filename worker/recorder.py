"""Facts become events: numbered under the fence, on the live tail at once, in the log of record within a second."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from sqlmodel import Session

from core import jobs
from core.events import Cursor, Event
from core.failpoints import reach
from core.jobs import Claim
from core.models import Job, utc_now
from core.unit_of_work import UnitOfWork
from worker.training.facts import Alive, Batch, Epoch, Fact, Planned, Preparing, Sample, Warned

FLUSH_SECONDS = 1.0
# How old the trainer's memory may be: to find what a trainer has started, psutil looks at every process there is.
MEMORY_SECONDS = 10.0
# Weight of the newest update in the smoothed time per update: the ETA follows a change within some 20 updates.
_SMOOTHING = 0.1


class Recorder:
    """The one writer of a claimed job's log.

    `write` may be called from the thread that reads the trainer, the rest from the supervisor's.
    """

    def __init__(self, claim: Claim, job: Job, work: UnitOfWork) -> None:
        self._claim, self._work = claim, work
        self._seq = 1  # the claim's own event
        self._unflushed: list[Event] = []
        self._undecided: Event | None = None
        self._lock = Lock()
        self._flushed_at = time.monotonic()
        self._measured_at: float | None = None
        self._steps: int | None = job.plan.get("steps")
        # What was left of the time is not known again before this attempt's second update.
        self._progress: dict[str, Any] = (job.progress or {}) | ({"eta_seconds": None} if job.progress else {})
        self._latest: dict[str, Any] = dict(job.latest or {})
        self._shown: dict[str, Any] | None = None  # what the row shows of these two since the last flush
        self._updated: tuple[float, int] | None = None  # when the newest update was told, and which it was
        self._seconds_per_update: float | None = None

    def write(self, fact: Batch | Epoch | Sample | Preparing | Warned) -> None:
        """Put a fact into the log."""
        with self._lock:
            if isinstance(fact, Batch):
                self._follow_batch(fact)
            elif isinstance(fact, Epoch):
                self._latest["validation_loss"] = fact.validation_loss
            event = self._next_event(fact.fact, _data(fact))
            self._unflushed.append(event)
            self._work.live_log.publish(self._claim.job_id, [event])

    def follow(self, fact: Alive) -> None:
        """Show how far the run is, without an event."""
        with self._lock:
            self._progress |= {"epoch": fact.epoch}
            self._follow_step(fact.step)

    def finish(self) -> None:
        """Show that nothing is left to do, also where that is before the last step of the plan."""
        with self._lock:
            self._progress |= {"fraction": 1.0, "eta_seconds": 0.0}

    def plan(self, fact: Planned) -> None:
        """Put the trainer's exact plan in the place of the first one, its warnings into the log. Raises FenceLost."""
        with self._lock:
            known, self._steps = self._steps is not None, fact.steps
        for message in [] if known else fact.warnings:
            self.write(Warned(code="plan", message=message))
        self._flush(plan=fact.model_dump(mode="json", exclude={"fact"}))

    def flush_if_due(self, memory: Callable[[], int | None]) -> bool:
        """Flush what is new, if that was last done a second ago, and say whether it was. `memory` is asked less often.

        Raises FenceLost, or one of OUTAGES.
        """
        now = time.monotonic()
        if now - self._flushed_at < FLUSH_SECONDS:
            return False
        if self._progress and (self._measured_at is None or now - self._measured_at > MEMORY_SECONDS):
            self._progress["memory_bytes"], self._measured_at = memory(), now
        with self._lock:
            news = self._unflushed or self._to_show() != self._shown
        self._flushed_at = now
        if news:
            self._flush()
        return True

    def flush(self) -> None:
        """Bring the log of record up to date. Raises FenceLost, or one of OUTAGES; nothing is forgotten then."""
        self._flush()

    def write_with(self, type_: str, data: dict[str, Any], also: Callable[[Session], None], **columns: Any) -> None:
        """Write an event and rows that belong to it in one transaction; watchers hear of it after the commit.

        No other event is numbered meanwhile, so the log stays in order. Raises FenceLost, or one of OUTAGES: then the
        commit may have gone through or not, and the call is to be repeated with the same arguments.
        """
        with self._lock:
            # Numbered once: where a commit was in doubt the repetition is the same event, and no fact takes its number.
            event = self._undecided = self._undecided or self._next_event(type_, data)
            pending = [*self._unflushed, event]
            with self._work.begin() as session:
                jobs.record(session, self._claim, pending, **columns)
                also(session)
            self._undecided = None
            self._unflushed.clear()
            self._work.live_log.publish(self._claim.job_id, [event])

    def _flush(self, **columns: Any) -> None:
        self._flushed_at = time.monotonic()
        with self._lock:
            pending, shown = list(self._unflushed), self._to_show()
        with self._work.begin() as session:
            jobs.record(session, self._claim, pending, **columns, **shown)
            reach("flush")
        reach("flushed")
        with self._lock:
            del self._unflushed[: len(pending)]
            self._shown = shown

    def _to_show(self) -> dict[str, Any]:
        # None until there is something: a job that is still preparing has no progress.
        return {"progress": dict(self._progress) or None, "latest": dict(self._latest) or None}

    def _next_event(self, type_: str, data: dict[str, Any]) -> Event:
        self._seq += 1
        return Event(Cursor(self._claim.fence, self._seq), type_, utc_now(), data)

    def _follow_batch(self, fact: Batch) -> None:
        self._latest |= {"loss": fact.loss, "accuracy": fact.accuracy, "learning_rate": fact.learning_rate}
        self._progress |= {"epoch": fact.epoch, "batch": fact.batch}
        if fact.tokens_per_second is None:  # not the end of a window
            return
        self._latest["grad_norm"] = fact.grad_norm
        self._progress["tokens_per_second"] = fact.tokens_per_second
        self._follow_step(fact.step)

    def _follow_step(self, step: int) -> None:
        now = time.monotonic()
        if self._updated is not None and step > self._updated[1]:
            at, before = self._updated
            # With log_every several updates lie between two that are told.
            seconds, known = (now - at) / (step - before), self._seconds_per_update
            smoothed = seconds if known is None else known + _SMOOTHING * (seconds - known)
            self._seconds_per_update = smoothed
            self._progress["steps_per_second"] = 1 / smoothed if smoothed else None
        self._updated = (now, step)
        self._progress["step"] = step
        if self._steps and self._seconds_per_update is not None:
            self._progress["eta_seconds"] = (self._steps - step) * self._seconds_per_update
        if self._steps:
            self._progress["fraction"] = step / self._steps


def _data(fact: Fact) -> dict[str, Any]:
    data = fact.model_dump(mode="json", exclude={"fact"})
    if isinstance(fact, Batch) and fact.tokens_per_second is None:
        del data["grad_norm"], data["tokens_per_second"]
    return data
