"""All live jobs, looked at again and again: how they are, and which of them have ended since."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cli.client import Client, Json, Refused, Unanswered
from cli.patience import Patience
from core.job_states import TERMINAL, JobStatus

# What runs first, then what waits.
_LIVE = (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.PAUSED)
_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 300.0
_NOT_FOUND = 404


class Look(NamedTuple):
    """The jobs that are live, and those that were at the look before."""

    live: list[Json]
    ended: list[Json]


def looks(client: Client, lost: Callable[[str], None]) -> Iterator[Look]:
    """Yield a look every two seconds, the last when no job is live. `lost` hears of every look that failed.

    Raises Refused where the server turns the watcher away, Unanswered where it stays away.
    """
    known: set[str] = set()
    patience = Patience(_PATIENCE_SECONDS)
    while True:
        try:
            look = _look(client, known)
        except Unanswered as error:
            lost("no answer")
            patience.wait(error)
            continue
        except Refused as error:
            if error.status < 500:
                raise
            lost(f"status {error.status}")
            patience.wait(error)
            continue
        patience.renew()
        known = {job["id"] for job in look.live}
        yield look
        if not look.live:
            return
        time.sleep(_PAUSE_SECONDS)


def _look(client: Client, known: set[str]) -> Look:
    live = {job["id"]: job for status in _LIVE for job in client.pages("/jobs", status=status.value, limit=200)}
    ended = []
    for job_id in known - live.keys():
        try:
            job = client.get(f"/jobs/{job_id}")
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise
            continue  # deleted
        if job["status"] in TERMINAL:
            ended.append(job)
        else:
            live[job_id] = job  # it moved from one list to another while they were read
    return Look(sorted(live.values(), key=_place), sorted(ended, key=lambda job: str(job["finished_at"])))


def _place(job: Json) -> tuple[int, int, str]:
    return _LIVE.index(job["status"]), job["queue_position"] or 0, job["id"]
