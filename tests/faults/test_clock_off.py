"""Wall clocks that are off by an hour: leases and the queue go by the database's clock, and nothing changes.

On PostgreSQL, since on SQLite the database's clock is that of the one machine.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from core.models import Dataset, utc_now
from core.settings import Settings
from tests.faults.account import account
from tests.faults.test_api_killed import api
from tests.installation import LONG, TINY, Installation, trainer_of
from tests.services import PostgresServer, RedisServer, missing, wait_for

HOUR, LEASE = 3600, 6
Off = Callable[[int], dict[str, str]]
SOURCE = Path(__file__).with_name("wrong_clock.c")


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Off:
    """Return the environment of a process, and of what it starts, whose clock is off by so many seconds."""
    if not shutil.which("gcc"):
        missing("gcc")
    folder = tmp_path_factory.mktemp("clock")

    def off(seconds: int) -> dict[str, str]:
        library = folder / f"{seconds}.so"
        subprocess.run(["gcc", "-shared", "-fPIC", f"-DSHIFT=({seconds})", "-o", library, SOURCE], check=True)
        return {"LD_PRELOAD": str(library)}

    return off


@pytest.fixture
def installation(tmp_path: Path, postgres: PostgresServer, own_redis: RedisServer) -> Iterator[Installation]:
    """An epochd on PostgreSQL, whose clock is right."""
    url = postgres.new_database("clocks", like="template_epochd")
    made = Installation(Settings(data_dir=tmp_path, database_url=url, redis_url=own_redis.url))
    yield made
    made.work.close()
    postgres.drop_database("clocks")


def test_leases_of_workers_whose_clocks_are_off_last_as_long_as_any(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, wrong_clock: Off
) -> None:
    lease = {"EPOCHD_LEASE_SECONDS": str(LEASE)}
    with (
        installation.worker(**lease, **wrong_clock(-HOUR)) as slow,
        installation.worker(**lease, **wrong_clock(+HOUR)) as fast,
    ):
        jobs = [installation.submit(dataset, **LONG) for _ in range(2)]
        for job_id in jobs:
            installation.wait_for_batch(job_id, 5)
        of_slow, of_fast = sorted(jobs, key=lambda job_id: _runs(installation, job_id, fast))
        for job_id, seconds in ((of_slow, -HOUR), (of_fast, +HOUR)):
            apart = installation.log(job_id)[-1].at - utc_now()
            assert abs(apart.total_seconds() - seconds) < 60, "its clock is not off"
        trainer_of(fast).suspend()  # there is time enough: its job does not end meanwhile
        _is_taken_away_when_its_lease_ends(installation, of_slow, slow)
        assert _runs(installation, of_fast, fast)
        assert installation.job(of_fast).attempt == 1
        _is_taken_away_when_its_lease_ends(installation, of_fast, fast)
        for job_id in jobs:
            job = installation.wait_for_status(job_id, "succeeded", "failed")
            assert (job.status, job.attempt) == ("succeeded", 2)
    for job_id in jobs:
        account(installation, job_id, undisturbed_weights)


def _runs(installation: Installation, job_id: str, worker: psutil.Popen) -> bool:
    return f":{worker.pid}:" in (installation.job(job_id).worker or "")


def _is_taken_away_when_its_lease_ends(installation: Installation, job_id: str, worker: psutil.Popen) -> None:
    """Freeze a worker until the other has put its job back."""
    family = [worker, *worker.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    ends = installation.job(job_id).lease_expires_at
    assert ends
    assert 0 < (ends - utc_now()).total_seconds() <= LEASE
    wait_for(
        lambda: any(event.type == "requeued" for event in installation.log(job_id)),
        seconds=LEASE + 60,
        what="the end of the lease",
    )
    assert utc_now() >= ends
    for process in reversed(family):
        process.send_signal(signal.SIGCONT)


def test_a_job_that_comes_in_where_the_clock_is_slow_waits_its_turn(
    installation: Installation, dataset: Dataset, wrong_clock: Off
) -> None:
    installation.submit(dataset)
    with api(installation, **wrong_clock(-HOUR)) as client:
        second = client.post("/jobs", json={**TINY, "dataset": dataset.id}).json()
    assert second["queue_position"] == 2
    assert abs((datetime.fromisoformat(second["created_at"]) - utc_now()).total_seconds()) < 60
