"""What a job's trainers wrote to their standard error: of the last attempts, and of each its end."""

from sqlmodel import Session, col, delete, select

from core.models import Job, TrainerOutput, utc_now

KEPT_ATTEMPTS = 5


def write(session: Session, *, job_id: str, fence: int, attempt: int, lines: int, text: str) -> None:
    """Put an attempt's output in the place of what was known of it. `lines` is how many there were, those included that
    `text` leaves out.

    The row is the fence's own, so nobody else's is touched, however late this comes. A deleted job gets none.
    """
    job = session.get(Job, job_id)
    if job is None or job.deleted_at is not None:
        return
    session.merge(
        TrainerOutput(job_id=job_id, fence=fence, attempt=attempt, lines=lines, text=text, updated_at=utc_now())
    )
    session.flush()
    for old in [row.fence for row in of_job(session, job_id)][KEPT_ATTEMPTS:]:
        session.exec(delete(TrainerOutput).where(col(TrainerOutput.job_id) == job_id, col(TrainerOutput.fence) == old))


def of_job(session: Session, job_id: str) -> list[TrainerOutput]:
    """Return what is kept, the newest attempt first."""
    mine = select(TrainerOutput).where(TrainerOutput.job_id == job_id)
    return list(session.exec(mine.order_by(col(TrainerOutput.fence).desc())))
