"""The way to the database breaks: training goes on within the lease, and the log has everything in the end."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest

from core import job_queries
from core.database import connect, migrate
from core.models import Dataset
from core.settings import Settings
from tests.faults.account import account
from tests.faults.proxy import Cut, Proxy
from tests.installation import LONG, Installation, trainer_of
from tests.services import RedisServer, postgres_on_a_port, wait_for


@pytest.fixture
def link() -> Iterator[tuple[Proxy, str]]:
    """A PostgreSQL of the test's own behind a link that can be cut, and the straight way to it."""
    with postgres_on_a_port("epochd_faults") as (_, port, straight):
        proxy = Proxy(port)
        yield proxy, straight
        proxy.close()


@pytest.fixture
def crooked(link: tuple[Proxy, str]) -> str:
    """The way to it that leads over the link."""
    proxy, straight = link
    return straight.replace(straight.rpartition(":")[2].partition("/")[0], str(proxy.port))


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
    installation: Installation, dataset: Dataset, undisturbed_weights: str, link: tuple[Proxy, str], crooked: str
) -> None:
    proxy, _ = link
    with installation.worker(EPOCHD_DATABASE_URL=crooked):
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 20)
        proxy.cut()
        told = len(installation.log(job_id))
        until = monotonic() + 8  # two rounds of the reconciler, in which it must not take the outage for a loss
        wait_for(lambda: monotonic() > until, what="some seconds without the database")
        assert len(installation.log(job_id)) == told
        proxy.mend()
        job = installation.wait_for_status(job_id, "succeeded", "failed")
    # Whether its trainer was done before the way back was mended, or not: it was not stopped, and no other one began.
    assert (job.status, job.attempt, job.failures) == ("succeeded", 1, 0)
    account(installation, job_id, undisturbed_weights)


def test_a_link_that_keeps_breaking_costs_nothing_but_time(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, link: tuple[Proxy, str], crooked: str
) -> None:
    proxy, _ = link
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


def test_an_outage_longer_than_a_lease_costs_those_who_ran_one_loss_and_those_who_wait_nothing(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, link: tuple[Proxy, str], crooked: str
) -> None:
    proxy, _ = link
    settings = {"EPOCHD_DATABASE_URL": crooked, "EPOCHD_LEASE_SECONDS": "6"}
    with installation.worker(**settings) as one, installation.worker(**settings) as other:
        running = [installation.submit(dataset, **LONG) for _ in range(2)]
        for job_id in running:
            installation.wait_for_batch(job_id, 5)
        waiting = installation.submit(dataset, training={"epochs": 1})
        trainers = [trainer_of(one), trainer_of(other)]
        proxy.cut()
        until = monotonic() + 8
        assert not psutil.wait_procs(trainers, timeout=6)[1]
        with installation.work.begin() as session:
            assert not job_queries.expired(session), "each is stopped while its job is still its own"
        wait_for(lambda: monotonic() > until, what="more than a lease without the database")
        proxy.mend()
        for job_id in [*running, waiting]:
            assert installation.wait_for_status(job_id, "succeeded", "failed").status == "succeeded"
    for job_id in running:
        (lost,) = [event.data for event in installation.log(job_id) if event.type == "requeued"]
        assert (lost["reason"], lost["failures"], installation.job(job_id).attempt) == ("worker_lost", 1, 2)
        account(installation, job_id, undisturbed_weights)
    assert (installation.job(waiting).attempt, installation.job(waiting).failures) == (1, 0)


# What a worker commits in a job's life, and what tells it from the rest.
COMMITS = {
    "the claim": b"attempt=(jobs.attempt",
    "a renewal": b"UPDATE jobs SET lease_expires_at",
    "the plan": b"UPDATE jobs SET plan",
    "a checkpoint": b"INSERT INTO checkpoints",
    "the end": b"finished_at=(clock_timestamp",
    "a part of the log": b"INSERT INTO events",
}


def test_a_link_that_breaks_during_commits_costs_nothing_but_time(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, link: tuple[Proxy, str], crooked: str
) -> None:
    proxy, _ = link
    chance = random.Random(0)
    to_cut = {name: [Cut.BEFORE, Cut.AFTER] for name in COMMITS}

    def where(said: bytes) -> Cut | None:
        """The first of each kind before the server has it, the second after; then one in five of all."""
        for name, mark in COMMITS.items():
            if mark in said and to_cut[name]:
                return to_cut[name].pop(0)
        return chance.choice(list(Cut)) if chance.random() < 0.2 else None

    proxy.cut_commits(where)
    with installation.worker(EPOCHD_DATABASE_URL=crooked, EPOCHD_LEASE_SECONDS="18"):  # renewed every 3 s
        job_id = installation.submit(dataset, **LONG)
        job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert not any(to_cut.values())
    assert (job.status, job.attempt, job.failures) == ("succeeded", 1, 0)
    account(installation, job_id, undisturbed_weights)
