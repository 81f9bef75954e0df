"""Tickets: what opens one job's stream once, within a minute, where a key cannot be sent. Only hashes are stored."""

import secrets
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col, delete, select

from core.database import database_now
from core.ids import secret_hash
from core.keys import Caller, caller_of
from core.models import Key, Ticket

_SECONDS = 60.0


def issue(session: Session, caller: Caller, job_id: str) -> tuple[str, datetime]:
    """Make a ticket for one of the caller's jobs and return it, the one time it can be seen, and when it expires."""
    # Nobody else takes away those that were never used.
    session.exec(delete(Ticket).where(col(Ticket.expires_at) <= database_now()))
    ticket = secrets.token_urlsafe(32)
    expires_at: datetime = session.execute(sa.select(database_now(_SECONDS))).scalar_one()
    session.add(Ticket(job_id=job_id, sha256=secret_hash(ticket), key_id=caller.key_id, expires_at=expires_at))
    session.flush()
    return ticket, expires_at


def redeem(session: Session, presented: str, job_id: str) -> Caller | None:
    """Use a ticket up and return whose it was; None where it is unknown, used, expired, or of another job.

    The DELETE is the guard: of two that present the same ticket it gives one row to one. A ticket opens nothing that
    the key it was made with no longer opens.
    """
    used = session.execute(
        delete(Ticket)
        .where(
            col(Ticket.job_id) == job_id,
            col(Ticket.sha256) == secret_hash(presented),
            col(Ticket.expires_at) > database_now(),
        )
        .returning(col(Ticket.key_id))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if used is None:
        return None
    return caller_of(session.exec(select(Key).where(col(Key.id) == used.key_id)).one())
