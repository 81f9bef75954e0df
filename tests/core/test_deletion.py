"""A deleted job's rows are taken away bit by bit, and nobody else's are."""

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import deletion, jobs
from core.events import Cursor, Event
from core.models import Checkpoint, EventRow, Job, JobTag, utc_now
from tests.house import LOST, House


def _ended(house: House) -> str:
    claim = house.running(tags={"team": "docs"})
    events = [Event(Cursor(claim.fence, seq), "warning", utc_now(), {}) for seq in range(2, 26)]
    house.do(jobs.record, claim, events)
    house.publish(claim, 1)
    house.do(jobs.fail, claim, LOST)
    return claim.job_id


def _rows(house: House, job_id: str) -> list[int]:
    with house.work.reading() as session:
        of_job = [table.job_id == job_id for table in (EventRow, Checkpoint, JobTag)] + [Job.id == job_id]
        return [session.exec(select(sa.func.count()).where(condition)).one() for condition in of_job]


def test_rows_go_some_at_a_time_until_none_is_left(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "EVENTS_AT_ONCE", 10)
    gone, kept = _ended(house), _ended(house)
    house.do(jobs.delete, house.owner_id, gone)
    assert house.do(deletion.deleted_jobs) == [gone]
    assert _rows(house, gone) == [27, 1, 0, 1], "its tags, by which lists find it, are gone at once"
    done = []
    while not done or not done[-1]:
        done.append(house.do(deletion.take_away, gone))
        events = 27 - 10 * len(done) if not done[-1] else 0
        assert _rows(house, gone)[0] == events
    assert done == [False, False, True]
    assert _rows(house, gone) == [0, 0, 0, 0]
    assert house.do(deletion.deleted_jobs) == []
    assert _rows(house, kept) == [27, 1, 1, 1]
    assert house.do(deletion.take_away, gone), "once more changes nothing"


def test_a_job_that_was_not_deleted_keeps_its_row(house: House) -> None:
    job_id = house.submit().id
    assert house.do(deletion.deleted_jobs) == []
    assert house.job(job_id).status == "queued"
