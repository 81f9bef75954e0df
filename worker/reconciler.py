"""Mending what was lost: leases that ran out, workers of this machine that died, jobs that nobody rang for, litter.

Runs in every worker, as often and as many at once as one likes: all of it is guarded moves.
"""

import time
from collections.abc import Callable
from threading import Event as Flag
from threading import Thread

import structlog
from sqlmodel import Session

from core import job_queries, jobs
from core.database import OUTAGES
from core.models import Job
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork
from worker import failures, sweeper
from worker.identity import is_dead, machine_prefix

_log = structlog.get_logger()

ROUND_SECONDS = 5.0
# The whole store is looked through; what lies there for some minutes more costs nothing but its space.
_SWEEP_SECONDS = 600.0


class Reconciler:
    """A thread that makes a round every few seconds.

    `idle` says whether this worker could take a job, and `take_up` has it do so without holding up the round.
    """

    def __init__(
        self,
        work: UnitOfWork,
        store: Store,
        settings: Settings,
        idle: Callable[[], bool],
        take_up: Callable[[], None],
    ) -> None:
        self._work, self._store, self._settings, self._idle, self._take_up = work, store, settings, idle, take_up
        self._ended = Flag()
        self._sweep_from = 0.0
        # While the database was away nobody could renew, and this process may have started in the middle of that.
        self._expire_from = time.monotonic() + settings.lease_seconds
        self._thread = Thread(target=self._keep, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin with a round at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round in hand."""
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while True:
            try:
                self.make_round()
            except OUTAGES as error:
                self._expire_from = time.monotonic() + self._settings.lease_seconds
                _log.warning("reconciler_without_database", reason=str(error))
            except Exception:  # noqa: BLE001 - a round that failed must not be the last one
                _log.exception("reconciler_round_failed")
            if self._ended.wait(ROUND_SECONDS):
                return

    def make_round(self) -> None:
        """Put back what was lost, take up what waits if this worker is idle, show that it is alive, and clean up."""
        with self._work.begin() as session:
            for job in job_queries.held_by(session, machine_prefix()):
                if job.worker and is_dead(job.worker):
                    self._lose(session, job)
        if time.monotonic() >= self._expire_from:
            with self._work.begin() as session:
                for job in job_queries.expired(session):
                    self._lose(session, job)
        if self._idle():
            with self._work.reading() as session:
                waiting = job_queries.claimable(session)
            if waiting:
                self._take_up()
        if self._settings.heartbeat_file:
            self._settings.heartbeat_file.touch()
        sweeper.remove_deleted_jobs(self._work, self._store)
        if time.monotonic() >= self._sweep_from:
            sweeper.sweep(self._work, self._store, self._settings)
            self._sweep_from = time.monotonic() + _SWEEP_SECONDS

    def _lose(self, session: Session, job: Job) -> None:
        status = jobs.lose(session, job.id, job.fence, failures.WORKER_LOST)
        _log.warning("worker_lost", job=job.id, worker=job.worker, now=status)
