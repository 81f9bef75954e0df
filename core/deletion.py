"""The rows of deleted jobs: out of every client's sight at once, and taken away bit by bit."""

import sqlalchemy as sa
from sqlmodel import Session, col, delete, select

from core.models import Checkpoint, CurveBlock, EventRow, Job, JobTag, Ticket, TrainerOutput

# A log may hold millions of events: one transaction over all of them would keep everyone else waiting.
EVENTS_AT_ONCE = 10_000


def deleted_jobs(session: Session) -> list[str]:
    """Return the ids of the jobs that were deleted and still have rows."""
    return list(session.exec(select(Job.id).where(col(Job.deleted_at).is_not(None))))


def take_away(session: Session, job_id: str) -> bool:
    """Delete some of a deleted job's rows, and say whether that were all of them."""
    place = sa.tuple_(col(EventRow.fence), col(EventRow.seq))
    of_job = col(EventRow.job_id) == job_id
    some = select(EventRow.fence, EventRow.seq).where(of_job).order_by(col(EventRow.fence), col(EventRow.seq))
    last = session.exec(some.offset(EVENTS_AT_ONCE - 1).limit(1)).first()
    if last is not None:
        session.exec(delete(EventRow).where(of_job, place <= sa.tuple_(*map(sa.literal, last))))
        return False
    for table in (EventRow, CurveBlock, Checkpoint, JobTag, Ticket, TrainerOutput):
        session.exec(delete(table).where(col(table.job_id) == job_id))
    session.exec(delete(Job).where(col(Job.id) == job_id, col(Job.deleted_at).is_not(None)))
    return True
