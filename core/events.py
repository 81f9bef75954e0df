"""The log of record: every event of a job, in SQL, ordered by its cursor `<fence>-<seq>`."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from core.errors import InvalidInput
from core.job_states import TERMINAL
from core.models import EventRow

BATCH_COLUMNS = (
    "epoch",
    "batch",
    "step",
    "loss",
    "accuracy",
    "learning_rate",
    "tokens",
    "grad_norm",
    "tokens_per_second",
)
# Absent where a batch does not end its window. One that does always has a speed; its grad_norm is null if skipped.
_OF_WINDOW = ("grad_norm", "tokens_per_second")
_TERMINAL_TYPES = frozenset(TERMINAL)


class Cursor(NamedTuple):
    """An event's place in its job's log. Tuples of ints compare as the log is ordered."""

    fence: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3-17`. Raises InvalidInput for anything else."""
        match = re.fullmatch(r"(\d{1,9})-(\d{1,18})", text, re.ASCII)
        if not match:
            raise InvalidInput(f"{text[:60]!r} is no event id: use the id of an event, or leave `after` out.")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.fence}-{self.seq}"


START = Cursor(0, 0)


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job."""

    cursor: Cursor
    type: str
    at: datetime
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """Whether the log ends here."""
        return self.type in _TERMINAL_TYPES

    def to_json(self) -> str:
        """Return the event as clients get it: one line."""
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        document = {"id": str(self.cursor), "type": self.type, "at": at, "data": self.data}
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def append(session: Session, job_id: str, events: Iterable[Event]) -> None:
    """Write events to the log, in the caller's transaction.

    An event that is there already stays as it is, so a write whose commit was in doubt can be repeated.
    """
    rows = [_row(job_id, event) for event in events]
    if rows:
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        session.execute(insert(EventRow).on_conflict_do_nothing(), rows)


def read(session: Session, job_id: str, after: Cursor, limit: int, types: Sequence[str] = ()) -> list[Event]:
    """Return up to `limit` events behind the cursor, oldest first: of these types, or where none is named of all."""
    place = sa.tuple_(col(EventRow.fence), col(EventRow.seq))
    # Columns, not entities: a replay reads the whole log, and the ORM's objects would take half of its time.
    query = (
        select(*(getattr(EventRow, name) for name in EventRow.model_fields))
        .where(col(EventRow.job_id) == job_id, place > sa.tuple_(sa.literal(after.fence), sa.literal(after.seq)))
        .order_by(col(EventRow.fence), col(EventRow.seq))
        .limit(limit)
    )
    if types:
        query = query.where(col(EventRow.type).in_(types))
    return [_event(row) for row in session.execute(query)]


def newest(session: Session, job_id: str) -> Event | None:
    """Return the last event of the log so far."""
    row = session.exec(
        select(EventRow)
        .where(col(EventRow.job_id) == job_id)
        .order_by(col(EventRow.fence).desc(), col(EventRow.seq).desc())
        .limit(1)
    ).first()
    return _event(row) if row else None


def _row(job_id: str, event: Event) -> dict[str, Any]:
    batch = event.type == "batch"
    return {
        "job_id": job_id,
        "fence": event.cursor.fence,
        "seq": event.cursor.seq,
        "type": event.type,
        "at": event.at,
        "data": None if batch else event.data,
        **{name: event.data.get(name) if batch else None for name in BATCH_COLUMNS},
    }


def _event(row: EventRow | sa.Row[Any]) -> Event:
    if row.type == "batch":
        data = {name: getattr(row, name) for name in BATCH_COLUMNS}
        if row.tokens_per_second is None:
            for name in _OF_WINDOW:
                del data[name]
    else:
        data = row.data or {}
    return Event(Cursor(row.fence, row.seq), row.type, row.at, data)
