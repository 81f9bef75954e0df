"""Holding a job: renew the lease in time, hear what the client asks, and know when the hold is gone."""

import time
from contextvars import copy_context
from functools import partial
from threading import Event as Flag
from threading import Thread
from typing import NamedTuple

import structlog

from core import jobs
from core.database import OUTAGES
from core.errors import FenceLost
from core.jobs import Asked, Claim
from core.live_log import LISTEN_SECONDS
from core.settings import Settings
from core.unit_of_work import UnitOfWork

_log = structlog.get_logger()


class Renewal(NamedTuple):
    """The newest renewal that succeeded: what it heard, and when it was sent."""

    asked: Asked
    sent_at: float


class Lease:
    """A thread that renews. Read `lost`, and in `renewal` what clients want; leave with `with`."""

    def __init__(self, claim: Claim, work: UnitOfWork, settings: Settings) -> None:
        self._claim, self._work, self._settings = claim, work, settings
        self._ended = Flag()
        self._lost = False
        self.renewal = Renewal(Asked(stop=None, save=False), time.monotonic())
        keep = partial(copy_context().run, self._keep)  # what it logs names the job too
        self._thread = Thread(target=keep, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._work.live_log.nudge(self._claim.job_id)  # so that the thread need not wait for another
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether the job may be another's: taken, or not renewed for so long that it soon could be."""
        return self._lost or time.monotonic() - self.renewal.sent_at > self._settings.lease_surrender_seconds

    def _keep(self) -> None:
        renew_at = time.monotonic()  # at once: the claim may have waited for its commit
        while not self._lost:
            left = renew_at - time.monotonic()
            due = left <= 0 or self._nudged(left)
            if self._ended.is_set():
                return
            if due:
                renew_at = time.monotonic() + self._settings.lease_renewal_seconds
                self._renew()

    def _nudged(self, seconds: float) -> bool:
        """Wait for a nudge, as long as one listens at most, and say whether it came."""
        heard = self._work.live_log.nudged(self._claim.job_id, seconds)
        if heard is None:  # without Redis the next renewal hears what is asked
            self._ended.wait(min(seconds, LISTEN_SECONDS))
        return bool(heard)

    def _renew(self) -> None:
        sent = time.monotonic()  # before sending: the database may count from any moment after it
        try:
            with self._work.begin() as session:
                asked = jobs.renew(session, self._claim, self._settings.lease_seconds)
        except FenceLost:
            self._lost = True
        except OUTAGES as error:
            _log.warning("lease_not_renewed", reason=str(error))
        else:
            self.renewal = Renewal(asked, sent)
