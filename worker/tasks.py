"""What a worker process does when a bell rings: claim the next job and supervise it, until there is none."""

from threading import Event as Flag
from threading import Lock
from uuid import uuid4

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from core import jobs
from core.database import OUTAGES, connect
from core.dispatch import Bell
from core.errors import FenceLost
from core.failpoints import reach
from core.jobs import Claim
from core.live_log import LiveLog
from core.settings import Settings
from core.store import open_store
from core.unit_of_work import UnitOfWork
from worker.identity import worker_name
from worker.reconciler import Reconciler
from worker.supervisor import Supervisor
from worker.trainer_process import Bench

_log = structlog.get_logger()


class Worker:
    """The state of one worker process: its connections, its spare trainer, and whether it is to drain."""

    def __init__(self, settings: Settings, slots: int) -> None:
        self._settings, self._slots = settings, slots
        self._name = worker_name()
        bell = Bell(settings.redis)
        self._work = UnitOfWork(connect(settings.database), LiveLog(settings.redis), bell)
        self._store = open_store(settings.store)
        self._bench = Bench()
        self._running = 0
        self._lock = Lock()
        self._reconciler = Reconciler(self._work, self._store, bell, settings, self._is_idle)
        # Set by the signal handler, which must do no more than that.
        self.drain = Flag()

    def start(self) -> None:
        """Warm up a spare trainer and begin to look after lost jobs. Called once, by a thread that lives on."""
        self._bench.refill()
        self._reconciler.start()

    def close(self) -> None:
        """End what was started."""
        self._reconciler.stop()
        self._bench.close()
        self._work.close()

    def run_claimable_jobs(self) -> None:
        """Claim and run jobs until there is none to claim or the worker drains."""
        with self._lock:
            self._running += 1
        try:
            while not self.drain.is_set() and (claim := self._claim()):
                self._run(claim)
        finally:
            with self._lock:
                self._running -= 1

    def _claim(self) -> Claim | None:
        """Claim a job. Where the commit's answer was lost, the database itself says whether it was won."""
        claim_id = uuid4().hex
        try:
            with self._work.begin() as session:
                claim = jobs.claim(
                    session, worker=self._name, claim_id=claim_id, lease_seconds=self._settings.lease_seconds
                )
                if claim:
                    reach("claim")
                return claim
        except OUTAGES as error:
            _log.warning("claim_in_doubt", reason=str(error))
        for attempt in Retrying(
            retry=retry_if_exception_type(OUTAGES), wait=wait_fixed(1), stop=stop_after_attempt(30), reraise=True
        ):
            with attempt, self._work.reading() as session:
                return jobs.recover_claim(session, claim_id)
        return None

    def _run(self, claim: Claim) -> None:
        reach("claimed")
        _log.info("job_claimed", job=claim.job_id, fence=claim.fence, attempt=claim.attempt)
        try:
            supervisor = Supervisor(
                claim, self._work, self._store, bench=self._bench, settings=self._settings, drain=self.drain
            )
            supervisor.run()
        except FenceLost as error:
            _log.warning("hold_lost", job=claim.job_id, fence=claim.fence, reason=error.detail)
        except OUTAGES as error:
            _log.error("hold_given_up", job=claim.job_id, fence=claim.fence, reason=str(error))
        if not self.drain.is_set():
            self._bench.refill()

    def _is_idle(self) -> bool:
        with self._lock:
            return self._running < self._slots and not self.drain.is_set()
