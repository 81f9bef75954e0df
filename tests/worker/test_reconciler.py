"""Rounds that mend: jobs of dead workers, leases that ran out, jobs nobody rang for; many at once, once each."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from core.settings import Settings
from core.store import Store
from tests.house import House
from tests.outage import away
from tests.services import wait_for
from worker import reconciler as reconciler_module
from worker.identity import machine_prefix, worker_name
from worker.reconciler import Reconciler

# No process has this number, and none began then.
DEAD = f"{machine_prefix()}4194305:0.00"


def _reconciler(house: House, store: Store, *, lease_seconds: float = 90.0) -> Reconciler:
    return Reconciler(house.work, store, Settings(lease_seconds=lease_seconds), lambda: False, lambda: None)


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
    reconciler = Reconciler(house.work, store, settings, lambda: False, lambda: None)
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


def test_what_waits_is_taken_up_where_this_worker_is_idle(house: House, store: Store) -> None:
    idle, taken_up = False, []
    reconciler = Reconciler(house.work, store, Settings(), lambda: idle, lambda: taken_up.append(1))
    house.submit()
    reconciler.make_round()
    assert not taken_up, "this worker is busy"
    idle = True
    reconciler.make_round()
    assert len(taken_up) == 1
    house.claim()
    reconciler.make_round()
    assert len(taken_up) == 1, "nothing waits"


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
