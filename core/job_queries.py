"""Finding jobs: what clients list and read, and what workers look for. Nothing here writes."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.database import UtcDateTime, database_now
from core.errors import NotFound
from core.job_states import JobStatus
from core.models import Job, JobTag
from core.ownership import Seer, seen_by, sees

_JOBS = Job.metadata.tables["jobs"]
# Who is claimed first: by priority, then by age.
QUEUE_ORDER = (col(Job.priority).desc(), col(Job.id))


def get(session: Session, seer: Seer, job_id: str) -> Job:
    """Return a job that the seer sees. Raises NotFound, for another's as for none."""
    job = session.get(Job, job_id)
    if job is None or not sees(seer, job) or job.deleted_at is not None:
        raise NotFound(f"There is no job {job_id}. `GET /jobs` lists yours.")
    return job


def page(
    session: Session, seer: Seer, *, limit: int, before: str | None, status: JobStatus | None, tag: str | None
) -> Sequence[sa.Row[Any]]:
    """Return up to `limit` jobs older than the id `before`, newest first. `tag` is `key:value`.

    They come as rows that name their columns: to make a session's objects of them would take longer than to read them.
    """
    id_, state = (col(JobTag.job_id), col(JobTag.status)) if tag else (col(Job.id), col(Job.status))
    # Those with a tag in the order of the tags' own indexes: no list of them all is made. Deleted jobs have none.
    query = (
        select(id_).where(seen_by(seer, col(JobTag.owner_id)), col(JobTag.tag) == tag)
        if tag
        else select(id_).where(seen_by(seer, col(Job.owner_id)), col(Job.deleted_at).is_(None))
    )
    if before:
        query = query.where(id_ < before)
    if status:
        query = query.where(state == status)
    ids = query.order_by(id_.desc()).limit(limit)
    return session.execute(sa.select(_JOBS).where(_JOBS.c.id.in_(ids)).order_by(_JOBS.c.id.desc())).all()


_QUEUED, _OLDEST = col(Job.status) == JobStatus.QUEUED, sa.bindparam("oldest", type_=sa.String)
# By priority: how many wait, and how many of them are older than the oldest that is asked for.
_QUEUE = (
    sa.select(col(Job.priority), sa.func.count(), sa.func.count().filter(col(Job.id) < _OLDEST))
    .where(_QUEUED)
    .group_by(col(Job.priority))
    .order_by(col(Job.priority).desc())
)
# The whole queue is only counted; the jobs among those asked for are few, since pages are in the order of ids.
_QUEUED_AMONG = (
    sa.select(col(Job.priority), col(Job.id))
    .where(_QUEUED, col(Job.id).between(_OLDEST, sa.bindparam("newest", type_=sa.String)))
    .order_by(*QUEUE_ORDER)
)


def queue_positions(session: Session, jobs: Sequence[Job | sa.Row[Any]]) -> dict[str, int]:
    """Return for each of the jobs that is queued how many will be claimed up to and with it."""
    asked = {job.id for job in jobs if job.status == JobStatus.QUEUED}
    if not asked:
        return {}
    span = {"oldest": min(asked), "newest": max(asked)}
    places = {
        level: list(rows) for level, rows in groupby(session.execute(_QUEUED_AMONG, span), key=lambda row: row[0])
    }
    positions, ahead = dict[str, int](), 0
    for level, total, before in session.execute(_QUEUE, span):
        for place, (_, id_of) in enumerate(places.get(level, ()), ahead + before + 1):
            if id_of in asked:
                positions[id_of] = place
        ahead += total
    return positions


def count_by_status(session: Session) -> dict[JobStatus, int]:
    """Return how many jobs of all owners are in each state."""
    count = select(Job.status, sa.func.count()).where(col(Job.deleted_at).is_(None)).group_by(col(Job.status))
    return dict.fromkeys(JobStatus, 0) | {JobStatus(status): number for status, number in session.exec(count)}


def count_failures(session: Session) -> dict[str, int]:
    """Return how many jobs of all owners have failed for each reason."""
    code = col(Job.error)["code"].as_string()
    failed = (col(Job.status) == JobStatus.FAILED, col(Job.deleted_at).is_(None))
    found = session.execute(sa.select(code, sa.func.count()).where(*failed).group_by(code))
    return {row[0]: row[1] for row in found}


def longest_wait(session: Session) -> float:
    """Return for how many seconds, by the database's clock, the oldest queued job has been there; 0 without one."""
    oldest = select(sa.func.min(Job.created_at, type_=UtcDateTime())).where(col(Job.status) == JobStatus.QUEUED)
    now, since = session.execute(sa.select(database_now(), oldest.scalar_subquery())).one()
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def running(session: Session, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the ids of up to `limit` running jobs of all owners, the newest first, and how far each is."""
    some = select(Job.id, Job.progress).where(col(Job.status) == JobStatus.RUNNING).order_by(col(Job.id).desc())
    return [(id_, dict(progress or {})) for id_, progress in session.exec(some.limit(limit))]


def claimable(session: Session) -> bool:
    """Say whether a job waits to be claimed."""
    waiting = select(Job.id).where(col(Job.status) == JobStatus.QUEUED)
    # In the order of its index, so that the database never looks through all that has ended to find it.
    return session.exec(waiting.order_by(*QUEUE_ORDER).limit(1)).first() is not None


def expired(session: Session) -> list[Job]:
    """Return the running jobs whose lease has run out by the database's clock, locked until the transaction ends."""
    query = select(Job).where(col(Job.status) == JobStatus.RUNNING, col(Job.lease_expires_at) < database_now())
    return list(session.exec(query.with_for_update(skip_locked=True)))


def held_by(session: Session, worker_prefix: str) -> list[Job]:
    """Return the running jobs whose worker's name starts so, locked until the transaction ends."""
    # Not LIKE, to which the `_` of a host's name is a wildcard.
    prefix = sa.func.substr(col(Job.worker), 1, len(worker_prefix))
    query = select(Job).where(col(Job.status) == JobStatus.RUNNING, prefix == worker_prefix)
    return list(session.exec(query.with_for_update(skip_locked=True)))
