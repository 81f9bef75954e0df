"""Rounds that mend: jobs of dead workers, leases that ran out, bells that nobody heard; many at once, once each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from core.dispatch import QUEUE, Bell
from core.live_log import LiveLog
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork
from tests.house import House
from tests.outage import away
from tests.services import RedisServer, redis_server, wait_for
from worker import reconciler as reconciler_module
from worker.identity import machine_prefix, worker_name
from worker.reconciler import Reconciler

# No process has this number, and none began then.
DEAD = f"{machine_prefix()}4194305:0.00"


def _reconciler(
    house: House, store: Store, *, lease_seconds: float = 90.0, idle: bool = False, redis: str = ""
) -> Reconciler:
    settings = Settings(lease_seconds=lease_seconds)
    return Reconciler(house.work, store, Bell(redis or "unix:///nowhere"), settings, lambda: idle)


def test_a_dead_worker_of_this_machine_loses_its_job_at_once(house: House, store: Store) -> None:
    dead, alive = house.running(worker=DEAD), house.running(worker=worker_name())
    elsewhere = house.running(worker="elsewhere:4026531836:4194305:0.00")
    _reconciler(house, store).make_round()
    job = house.job(dead.job_id)
    assert (job.status, job.failures) == ("queued", 1)
    assert house.log(dead.job_id)[-1].data["reason"] == "worker_lost"
    assert house.job(alive.job_id).status == house.job(elsewhere.job_id).status == "running"


def test_a_lease_that_ran_out_is_taken_wherever_its_worker_was(house: House, store: Store) -> None:
    late, good = house.running(worker="elsewhere:1:2:3", lease_seconds=-1), house.running(worker=worker_name())
    _reconciler(house, store, lease_seconds=0).make_round()
    assert house.job(late.job_id).status == "queued"
    assert house.job(good.job_id).status == "running"


def test_who_has_just_started_expires_nobody_for_one_lease(house: House, store: Store) -> None:
    late = house.running(worker="elsewhere:1:2:3", lease_seconds=-1)
    _reconciler(house, store, lease_seconds=90).make_round()
    assert house.job(late.job_id).status == "running"


def test_after_an_outage_nobody_is_expired_for_one_lease(house: House, store: Store, engine: sa.Engine) -> None:
    late = house.running(worker="elsewhere:1:2:3", lease_seconds=-1)
    settings = Settings(lease_seconds=0)
    reconciler = Reconciler(house.work, store, Bell("unix:///nowhere"), settings, lambda: False)
    settings.lease_seconds = 90
    with away(engine):
        reconciler.start()
        reconciler.stop()  # after the first round, which met the outage
    reconciler.make_round()
    assert house.job(late.job_id).status == "running"


def test_many_rounds_at_once_lose_each_job_once(house: House, store: Store) -> None:
    claims = [house.running(worker=DEAD, lease_seconds=-1) for _ in range(8)]
    reconcilers = [_reconciler(house, store, lease_seconds=0) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Reconciler.make_round, reconcilers))
    reconcilers[0].make_round()
    for claim in claims:
        job = house.job(claim.job_id)
        assert (job.status, job.failures, job.fence) == ("queued", 1, 2)
        assert house.told(claim.job_id) == ["submitted", "started", "requeued"]


@pytest.fixture(scope="module")
def own_redis() -> Iterator[RedisServer]:
    """A Redis whose queue nobody else rings in."""
    with redis_server() as server:
        yield server


def test_it_rings_for_a_waiting_job_where_this_worker_is_idle(
    engine: sa.Engine, store: Store, own_redis: RedisServer
) -> None:
    client = own_redis.client()
    house = House(UnitOfWork(engine, LiveLog(own_redis.url), Bell(own_redis.url)))
    client.flushall()
    _reconciler(house, store, idle=True, redis=own_redis.url).make_round()
    assert client.llen(QUEUE) == 0, "nothing waits"
    house.submit()
    client.flushall()  # the bell of the submission is lost
    _reconciler(house, store, idle=False, redis=own_redis.url).make_round()
    assert client.llen(QUEUE) == 0, "this worker is busy"
    _reconciler(house, store, idle=True, redis=own_redis.url).make_round()
    assert client.llen(QUEUE) == 1


def test_it_goes_on_round_by_round_until_it_is_stopped(
    house: House, store: Store, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "ROUND_SECONDS", 0.05)
    reconciler = _reconciler(house, store)
    with away(engine):
        reconciler.start()
    for _ in range(2):
        dead = house.running(worker=DEAD)
        wait_for(lambda dead=dead: house.job(dead.job_id).status == "queued", what="a round")  # type: ignore[misc]
        house.cancel(dead.job_id)
    reconciler.stop()
    dead = house.running(worker=DEAD)
    assert house.job(dead.job_id).status == "running"
