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
from core.settings import Settings
from core.unit_of_work import UnitOfWork

_log = structlog.get_logger()

# How often a nudge is looked for: a stop request is heard within a second.
_LISTEN_SECONDS = 0.5


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
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether the job may be another's: taken, or not renewed for so long that it soon could be."""
        return self._lost or time.monotonic() - self.renewal.sent_at > self._settings.lease_surrender_seconds

    def _keep(self) -> None:
        tried_last = 0.0  # renew at once: the claim may have waited for its commit
        while not self._ended.wait(_LISTEN_SECONDS) and not self._lost:
            due = time.monotonic() - tried_last > self._settings.lease_renewal_seconds
            if due or self._work.live_log.nudged(self._claim.job_id):
                tried_last = time.monotonic()
                self._renew()

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
