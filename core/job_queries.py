"""Finding jobs: what clients list and read, and what workers look for. Nothing here writes."""

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.database import UtcDateTime, database_now
from core.errors import NotFound
from core.job_states import JobStatus
from core.models import Job, JobTag

# Who is claimed first: by priority, then by age.
QUEUE_ORDER = (col(Job.priority).desc(), col(Job.id))


def get(session: Session, owner_id: str, job_id: str) -> Job:
    """Return one of this owner's jobs. Raises NotFound, for another's as for none."""
    job = session.get(Job, job_id)
    if job is None or job.owner_id != owner_id or job.deleted_at is not None:
        raise NotFound(f"There is no job {job_id}. `GET /jobs` lists yours.")
    return job


def page(
    session: Session, owner_id: str, *, limit: int, before: str | None, status: JobStatus | None, tag: str | None
) -> list[Job]:
    """Return up to `limit` jobs older than the id `before`, newest first. `tag` is `key:value`."""
    mine = select(Job).where(col(Job.owner_id) == owner_id, col(Job.deleted_at).is_(None))
    query = mine.order_by(col(Job.id).desc()).limit(limit)
    if before:
        query = query.where(col(Job.id) < before)
    if status:
        query = query.where(col(Job.status) == status)
    if tag:
        tagged = select(JobTag.job_id).where(col(JobTag.owner_id) == owner_id, col(JobTag.tag) == tag)
        query = query.where(col(Job.id).in_(tagged))
    return list(session.exec(query))


def queue_positions(session: Session, jobs: list[Job]) -> dict[str, int]:
    """Return for each of the jobs that is queued how many will be claimed up to and with it."""
    queued = [job.id for job in jobs if job.status == JobStatus.QUEUED]
    if not queued:
        return {}
    order = sa.func.row_number().over(order_by=QUEUE_ORDER).label("position")
    queue = select(Job.id, order).where(col(Job.status) == JobStatus.QUEUED).subquery()
    found = session.execute(sa.select(queue.c.id, queue.c.position).where(queue.c.id.in_(queued)))
    return {row.id: row.position for row in found}


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
