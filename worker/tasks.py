"""What a worker process does when a bell rings: claim the next job and supervise it, until there is none."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event as Flag
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
from worker.slots import Slot, Slots
from worker.supervisor import Supervisor
from worker.trainer_process import TrainerProcess, end_left_behind

_log = structlog.get_logger()


class Worker:
    """The state of one worker process: its connections, its slots, and whether it is to drain."""

    def __init__(self, settings: Settings, slots: Slots) -> None:
        self._settings, self._slots = settings, slots
        self._name = worker_name()
        self._work = UnitOfWork(connect(settings.database), LiveLog(settings.redis), Bell(settings.redis))
        self._store = open_store(settings.store)
        # For jobs that nobody rang for: their bells were lost, or Redis is away.
        self._unrung = ThreadPoolExecutor(max_workers=len(slots), thread_name_prefix="unrung")
        self._reconciler = Reconciler(self._work, self._store, settings, self._is_idle, self._take_up)
        # Set by the signal handler, which must do no more than that.
        self.drain = Flag()

    def start(self) -> None:
        """End what an earlier worker left behind, warm up the fork servers, and begin to look for jobs."""
        end_left_behind()
        self._slots.warm_up()
        self._reconciler.start()

    def close(self) -> None:
        """Wait for the jobs that still run, whose end is near once `drain` is set, and end what was started."""
        self._reconciler.stop()
        self._unrung.shutdown()
        self._slots.close()
        self._work.close()

    def run_claimable_jobs(self) -> None:
        """Claim and run jobs until there is none to claim, no slot is free for one, or the worker drains."""
        with self._slots.one() as slot:
            while slot and not self.drain.is_set() and self._run_next(slot):
                pass

    def _run_next(self, slot: Slot) -> bool:
        """Claim a job and run it to its end here; False where there was none, or no place for it."""
        with slot.trainer(give_up=self.drain.is_set) as trainer:
            claim = self._claim() if trainer else None
            if not (trainer and claim):
                return False
            self._run(claim, trainer)
        return True

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

    def _run(self, claim: Claim, trainer: TrainerProcess) -> None:
        reach("claimed")
        self._work.live_log.count_claim()
        with structlog.contextvars.bound_contextvars(job=claim.job_id, fence=claim.fence):
            _log.info("job_claimed", attempt=claim.attempt)
            self._supervise(claim, trainer)

    def _supervise(self, claim: Claim, trainer: TrainerProcess) -> None:
        try:
            Supervisor(claim, self._work, self._store, trainer, settings=self._settings, drain=self.drain).run()
        except FenceLost as error:
            _log.warning("hold_lost", reason=error.detail)
        except OUTAGES as error:
            _log.error("hold_given_up", reason=str(error))

    def _is_idle(self) -> bool:
        return self._slots.free > 0 and not self.drain.is_set()

    def _take_up(self) -> None:
        """Look for jobs with every slot that is free."""
        for _ in range(self._slots.free):
            self._unrung.submit(self.run_claimable_jobs)
