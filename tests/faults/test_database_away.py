"""The way to the database breaks: training goes on within the lease, and the log has everything in the end."""

import random
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from core.database import connect, migrate
from core.models import Dataset
from core.settings import Settings
from tests.faults.account import account
from tests.faults.proxy import Proxy
from tests.installation import LONG, Installation, trainer_of
from tests.services import PostgresServer, RedisServer, find_postgres, missing, wait_for


@pytest.fixture
def link() -> Iterator[tuple[Proxy, str]]:
    """A PostgreSQL of the test's own behind a link that can be cut, and the straight way to it."""
    binaries = find_postgres()
    if binaries is None:
        missing("PostgreSQL")
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = PostgresServer(binaries, password="secret", port=port)
    proxy = Proxy(port)
    try:
        server.new_database("epochd_faults")
        yield proxy, f"postgresql://epochd:secret@127.0.0.1:{port}/epochd_faults"
    finally:
        proxy.close()
        server.close()


@pytest.fixture
def installation(tmp_path: Path, link: tuple[Proxy, str], own_redis: RedisServer) -> Iterator[Installation]:
    """An epochd whose test has the straight way to the database."""
    engine = connect(link[1])
    migrate(engine)
    engine.dispose()
    made = Installation(Settings(data_dir=tmp_path, database_url=link[1], redis_url=own_redis.url))
    yield made
    made.work.close()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_a_database_that_is_away_for_a_while_costs_nothing(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, link: tuple[Proxy, str]
) -> None:
    proxy, straight = link
    crooked = straight.replace(straight.rpartition(":")[2].partition("/")[0], str(proxy.port))
    with installation.worker(EPOCHD_DATABASE_URL=crooked) as worker:
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 20)
        trainer = trainer_of(worker)
        proxy.cut()
        told = len(installation.log(job_id))
        until = monotonic() + 8  # two rounds of the reconciler, in which it must not take the outage for a loss
        wait_for(lambda: monotonic() > until, what="some seconds without the database")
        assert len(installation.log(job_id)) == told
        assert trainer.is_running()
        proxy.mend()
        job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert (job.status, job.attempt, job.failures) == ("succeeded", 1, 0)
    account(installation, job_id, undisturbed_weights)


def test_a_link_that_keeps_breaking_costs_nothing_but_time(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, link: tuple[Proxy, str]
) -> None:
    proxy, straight = link
    crooked = straight.replace(straight.rpartition(":")[2].partition("/")[0], str(proxy.port))
    with installation.worker(EPOCHD_DATABASE_URL=crooked):
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 5)
        chance, next_blip = random.Random(0), 0.0

        def over() -> bool:
            nonlocal next_blip
            # Now and then it meets a transaction; at even intervals it could meet each repetition of one.
            if monotonic() > next_blip:
                proxy.blip()
                next_blip = monotonic() + chance.uniform(0.1, 1)
            return installation.job(job_id).status in ("succeeded", "failed")

        wait_for(over, seconds=120, what="the end of the job")
    job = installation.job(job_id)
    assert (job.status, job.attempt, job.failures) == ("succeeded", 1, 0)
    account(installation, job_id, undisturbed_weights)
