"""Many workers on one queue: every job is won once, in its turn, and who finds nothing to do asks for little."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core.database import connect
from core.dispatch import Bell
from core.ids import new_id
from core.live_log import LiveLog
from core.models import Job
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork
from tests.house import House
from tests.services import PostgresServer, RedisServer
from worker.reconciler import Reconciler

JOBS, WORKERS = 2000, 20

# So many processes, each of which claims and ends jobs until there is none, and writes down what it won, in order.
# They are forked from one that has done the imports.
PROGRAM = """
import json, os, sys
from uuid import uuid4
from core import jobs
from core.database import connect
from core.dispatch import Bell
from core.jobs import JobError
from core.live_log import LiveLog
from core.unit_of_work import UnitOfWork

number, workers = 0, int(sys.argv[3])
while number < workers - 1 and os.fork():
    number += 1
work = UnitOfWork(connect(sys.argv[1]), LiveLog(sys.argv[2]), Bell(sys.argv[2]))
won = []
while True:
    with work.begin() as session:
        claim = jobs.claim(session, worker=f"w{number}", claim_id=uuid4().hex, lease_seconds=90)
    if claim is None:
        break
    with work.begin() as session:
        jobs.fail(session, claim, JobError("data", "m", "h"))
    won.append(claim.job_id)
with open(f"{sys.argv[4]}/{number}.json", "w") as file:
    json.dump(won, file)
"""


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database of the test's own."""
    yield postgres.new_database("crowd", like="template_epochd")
    postgres.drop_database("crowd")


@pytest.fixture
def crowded(url: str, redis: RedisServer) -> Iterator[House]:
    """A house on it."""
    work = UnitOfWork(connect(url), LiveLog(redis.url), Bell(redis.url))
    yield House(work)
    work.close()


def submit(house: House, count: int) -> list[str]:
    """Submit jobs of three priorities, and return them in the order in which they are to be claimed."""
    with house.work.begin() as session:
        patterns = [house.submit_in(session, priority=priority)[0].model_dump() for priority in range(3)]
        rows = [patterns[number % 3] | {"id": new_id("job")} for number in range(count - len(patterns))]
        session.execute(sa.insert(Job), rows)
        made = sorted(patterns + rows, key=lambda row: (-row["priority"], row["id"]))
        return [row["id"] for row in made]


def test_each_of_many_jobs_is_won_once_and_in_its_turn(
    crowded: House, url: str, redis: RedisServer, tmp_path: Path
) -> None:
    in_turn = submit(crowded, JOBS)
    place = {job_id: number for number, job_id in enumerate(in_turn)}
    # It is over when the last of them has closed the output that they share.
    subprocess.run(
        [sys.executable, "-c", PROGRAM, url, redis.url, str(WORKERS), str(tmp_path)], check=True, stdout=subprocess.PIPE
    )
    won = [json.loads((tmp_path / f"{number}.json").read_bytes()) for number in range(WORKERS)]
    assert sorted(job_id for part in won for job_id in part) == sorted(in_turn)
    assert all(won), "nobody went without"
    for part in won:
        # Who locks a job hides it from the others for a moment: each sees the queue but for what others are taking.
        places = [place[job_id] for job_id in part]
        assert all(later > earlier - WORKERS for earlier, later in pairwise(places))


def test_a_round_reads_no_more_of_a_long_queue_than_of_a_short_one(crowded: House, tmp_path: Path) -> None:
    rounds = []
    for count in (10, JOBS):
        submit(crowded, count)
        with crowded.work.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE jobs")
        settings = Settings(lease_seconds=0)
        reconciler = Reconciler(crowded.work, Store(tmp_path), settings, lambda: True, lambda: None)
        reconciler.make_round()  # the first one sweeps the store, which looks at every folder there
        rounds.append(_asked(crowded.work.engine, reconciler.make_round))
    short, long = rounds
    assert [statement for statement, _ in short] == [statement for statement, _ in long]
    plans = {statement: _plan(crowded.work.engine, statement, parameters) for statement, parameters in long}
    assert plans
    assert not [statement for statement, plan in plans.items() if "Seq Scan" in plan], plans


def _asked(engine: sa.Engine, act: Callable[[], None]) -> list[tuple[str, Any]]:
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return asked


def _plan(engine: sa.Engine, statement: str, parameters: Any) -> str:
    with engine.connect() as connection:
        lines = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        return "\n".join(line[0] for line in lines)
