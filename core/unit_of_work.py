"""One transaction and what follows from it: services write, this alone commits, and only then the world is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlmodel import Session

from core import events
from core.database import reading
from core.dispatch import Bell
from core.events import Event
from core.failpoints import reach
from core.live_log import LiveLog


@dataclass
class Announcements:
    """What to tell once the transaction is committed."""

    events: list[tuple[str, Event]] = field(default_factory=list)
    nudges: list[str] = field(default_factory=list)
    ring: bool = False


def announcements(session: Session) -> Announcements:
    """Return what this transaction will announce; services add to it."""
    made: Announcements = session.info.setdefault("announcements", Announcements())
    return made


def log_event(session: Session, job_id: str, event: Event) -> None:
    """Write an event to the log of record, and to the live tail once it is committed."""
    events.append(session, job_id, [event])
    announcements(session).events.append((job_id, event))


class UnitOfWork:
    """The way into the database for one process."""

    def __init__(self, engine: sa.Engine, live_log: LiveLog, bell: Bell) -> None:
        self.engine = engine
        self.live_log = live_log
        self._bell = bell

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back where the body raises; announcements go out after."""
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
            told = announcements(session)
        for job_id, event in told.events:
            self.live_log.publish(job_id, [event])
        for job_id in told.nudges:
            self.live_log.nudge(job_id)
        if told.ring:
            reach("bell")
            self._bell.ring()

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()
        self.live_log.close()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads."""
        with reading(self.engine) as session:
            yield session
