"""One claimed job from its assignment to its end: facts in, rows and events out, stop requests passed on."""

import time
from collections.abc import Callable
from contextvars import copy_context
from enum import Enum, auto
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread

import structlog
from pydantic import ValidationError
from sqlmodel import Session
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_fixed

from core import jobs
from core.database import OUTAGES
from core.errors import CancelRequested, Corrupt, FenceLost
from core.failpoints import reach
from core.job_spec import Checkpoints
from core.jobs import Claim, JobError
from core.models import Job
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork
from worker import failures, hub, sweeper
from worker.assignments import make_assignment
from worker.lease import Lease
from worker.output import OutputKeeper
from worker.publisher import Publisher
from worker.recorder import Recorder
from worker.trainer_process import TrainerProcess
from worker.training.facts import (
    Alive,
    Batch,
    Checkpoint,
    Epoch,
    Fact,
    Failed,
    Finished,
    Planned,
    Preparing,
    Ready,
    Sample,
    Stopped,
    Warned,
)

_log = structlog.get_logger()

# How often the supervisor looks at its lease and its log while the trainer says nothing.
_TICK_SECONDS = 0.5
# A trainer that has said its last word has nothing left to do but exit.
_EXIT_SECONDS = 10.0

_NO_ANSWER = (
    "The trainer did not answer the order to stop within {seconds:.0f} s and was killed: the last checkpoint counts. "
    "Where an update and a checkpoint take longer, raise EPOCHD_STOP_GRACE_SECONDS."
)


class _End(Enum):
    """What the supervisor itself can say at the end of a trainer's facts."""

    EXITED = auto()


class Supervisor:
    """Runs one claimed job. Everything it writes is fenced; it raises FenceLost where the job is no longer its own."""

    def __init__(
        self,
        claim: Claim,
        work: UnitOfWork,
        store: Store,
        trainer: TrainerProcess,
        *,
        settings: Settings,
        drain: Flag,
    ) -> None:
        self._claim, self._work, self._store, self._settings = claim, work, store, settings
        self._trainer, self._drain = trainer, drain
        self._output = OutputKeeper(claim, trainer.output, work)
        self._heard: SimpleQueue[Fact | _End] = SimpleQueue()
        self._stop_ordered_at: float | None = None
        self._save_ordered = False
        self._saved_at = 0.0  # when the checkpoint was listed that answered the last order to save
        self._heard_at = time.monotonic()

    def run(self) -> None:
        """Train until the job has ended, was put back, or was lost."""
        with self._work.reading() as session:
            job = session.get_one(Job, self._claim.job_id)
        self._recorder = Recorder(self._claim, job, self._work)
        retention = Checkpoints.model_validate(job.spec["checkpoints"])
        self._publisher = Publisher(self._claim, retention, self._store, self._recorder)
        with Lease(self._claim, self._work, self._settings) as self._lease, self._store.incoming() as scratch:
            try:
                self._train(job, scratch)
            except Corrupt as error:
                hint = "Upload the dataset again, or go on from another checkpoint, and submit the job again."
                self._fail(JobError("data", error.detail, hint))
            except hub.Unavailable as error:
                end = self._lose if error.may_pass else self._fail
                end(JobError("data", error.detail, error.hint))
            except hub.Interrupted:
                self._stop()
            except FenceLost:
                raise
            except OUTAGES as error:
                _log.warning("given_back_for_want_of_a_database", reason=str(error))
                self._give_back("the database was away")
            except Exception as error:  # noqa: BLE001 - whatever it was, the job must not stay `running`
                _log.exception("supervisor_failed")
                self._lose(failures.of_exception(error))
            finally:
                self._trainer.kill()
                self._output.keep()

    def _train(self, job: Job, scratch: Path) -> None:
        sweeper.clear_fence(self._claim, self._store)
        scratch.mkdir()
        self._trainer.assign(
            make_assignment(
                job,
                self._claim,
                self._work,
                self._store,
                settings=self._settings,
                output_dir=scratch,
                warn=self._warn,
                interrupted=self._is_called_off,
            )
        )
        reach("assigned")
        listen = partial(copy_context().run, self._listen)  # what it logs names the job too
        Thread(target=listen, name=f"facts-{job.id}", daemon=True).start()
        while True:
            try:
                heard = self._heard.get(timeout=_TICK_SECONDS)
            except Empty:
                heard = None
            if heard is not None and self._take_in(heard):
                return
            if self._lease.lost:
                raise FenceLost(f"{job.id} could not be held any longer")
            self._flush_if_due()
            self._pass_on_save()
            if self._pass_on_stop() or self._is_hung():
                return

    def _listen(self) -> None:
        """In a thread of its own, to the trainer's exit: facts for the log go there at once, others to `_take_in`."""
        try:
            for fact in self._trainer.facts():
                self._heard_at = time.monotonic()
                if isinstance(fact, Alive):
                    self._recorder.follow(fact)
                elif isinstance(fact, Batch | Epoch | Sample | Preparing | Warned):
                    self._recorder.write(fact)
                else:
                    self._heard.put(fact)
        except ValidationError as error:
            message = f"The trainer said what is no fact: {error}"
            self._heard.put(Failed(code="internal", message=message, hint="Report this as a defect of epochd."))
        self._heard.put(_End.EXITED)

    def _take_in(self, fact: Fact | _End) -> bool:
        """Act on a fact; True where the job's run is over."""
        match fact:
            case Ready():
                return False
            case Planned():
                self._insist(lambda: self._recorder.plan(fact))
                reach("planned")
                return False
            case Checkpoint():
                checkpoint = self._publisher.move_in(fact)
                self._insist(lambda: self._publisher.list(checkpoint, ordered=fact.ordered))
                if fact.ordered:
                    self._save_ordered, self._saved_at = False, time.monotonic()
                return False
            case Finished():
                self._recorder.finish()
                reason = "stopped early: the validation loss got no better" if fact.stopped_early else None
                self._end(lambda session: jobs.succeed(session, self._claim, fact.step, reason))
            case Stopped():
                self._stop()
            case Failed():
                self._trainer.end(_EXIT_SECONDS)  # what it wrote is whole then, and there before the failure is told
                self._fail(failures.of_fact(fact))
            case _End.EXITED:
                self._lose(failures.of_exit(self._trainer.end(_EXIT_SECONDS)))
        return True

    def _pass_on_save(self) -> None:
        """Order a checkpoint where a client asked for one since the last that answered."""
        asked, sent_at = self._lease.renewal
        if asked.save and sent_at > self._saved_at and not self._save_ordered:
            self._save_ordered = True
            self._trainer.order("save")

    def _pass_on_stop(self) -> bool:
        """Order a stop where someone wants that; True where the trainer did not answer within the grace."""
        if self._stop_ordered_at is None:
            if not self._is_to_stop():
                return False
            self._stop_ordered_at = time.monotonic()
            self._trainer.order("stop")
        if time.monotonic() - self._stop_ordered_at < self._settings.stop_grace_seconds:
            return False
        self._trainer.kill()
        self._warn("stopped_without_checkpoint", _NO_ANSWER.format(seconds=self._settings.stop_grace_seconds))
        self._stop()
        return True

    def _is_to_stop(self) -> bool:
        return self._lease.renewal.asked.stop is not None or self._drain.is_set()

    def _is_called_off(self) -> bool:
        """Say whether to give up what is fetched for the trainer, which has not begun."""
        return self._lease.lost or self._is_to_stop()

    def _stop(self) -> None:
        self._give_back("drained" if self._drain.is_set() else "told to stop, and no longer meant to")

    def _give_back(self, reason: str) -> None:
        if self._lease.lost:
            raise FenceLost(f"{self._claim.job_id} could not be held any longer")
        self._end(lambda session: jobs.stop(session, self._claim, reason))

    def _is_hung(self) -> bool:
        if time.monotonic() - self._heard_at < self._settings.stall_seconds:
            return False
        self._lose(failures.of_silence(self._settings.stall_seconds))
        return True

    def _fail(self, error: JobError) -> None:
        self._end(lambda session: jobs.fail(session, self._claim, error))

    def _lose(self, error: JobError) -> None:
        self._end(lambda session: jobs.lose(session, self._claim.job_id, self._claim.fence, error))

    def _end(self, move: Callable[[Session], object]) -> None:
        """Bring the log up to date, then make the job's last move under this fence, or the cancel that came first."""
        self._insist(self._recorder.flush)
        self._output.keep()

        def make_move() -> None:
            reach("ending")
            try:
                with self._work.begin() as session:
                    move(session)
                    reach("end")
            except CancelRequested:
                with self._work.begin() as session:
                    jobs.stop(session, self._claim, "asked")

        self._insist(make_move)
        reach("ended")

    def _insist(self, write: Callable[[], object]) -> None:
        """Repeat a write through an outage of the database, for as long as the job is held."""
        for attempt in Retrying(
            retry=retry_if_exception_type(OUTAGES),
            wait=wait_fixed(1),
            stop=lambda _: self._lease.lost,
            before_sleep=self._tell_of_outage,
            reraise=True,
        ):
            with attempt:
                write()

    def _tell_of_outage(self, tried: RetryCallState) -> None:
        reason = str(tried.outcome.exception()) if tried.outcome else ""
        _log.warning("write_repeated", attempt=tried.attempt_number, reason=reason)

    def _flush_if_due(self) -> None:
        try:
            if self._recorder.flush_if_due(self._trainer.memory):
                self._output.keep()
        except OUTAGES as error:
            _log.warning("log_of_record_behind", reason=str(error))

    def _warn(self, code: str, message: str) -> None:
        self._recorder.write(Warned(code=code, message=message))
