"""Holding a job: renewed in time, deaf to nothing that is asked, and given up before anyone else may have it."""

import pytest
import sqlalchemy as sa

from core import job_queries, jobs
from core.dispatch import Bell
from core.jobs import Claim
from core.live_log import LiveLog
from core.settings import Settings
from core.unit_of_work import UnitOfWork
from tests.house import LOST, House
from tests.outage import away
from tests.services import redis_server, wait_for
from worker.lease import Lease


def _lease(house: House, claim: Claim, lease_seconds: float = 90) -> Lease:
    # It renews every sixth of that.
    return Lease(claim, house.work, Settings(lease_seconds=lease_seconds))


def _runs_out(house: House, claim: Claim) -> bool:
    with house.work.begin() as session:
        return claim.job_id in [job.id for job in job_queries.expired(session)]


def test_a_lease_is_renewed_at_once_and_no_more_after_its_end(house: House) -> None:
    claim = house.running(lease_seconds=-1)
    with _lease(house, claim) as lease:
        wait_for(lambda: not _runs_out(house, claim), what="a renewal")
        assert not lease.lost
        assert lease.renewal.asked.stop is None
        sent_at = lease.renewal.sent_at
    assert lease.renewal.sent_at == sent_at, "to end it is no reason to renew"
    house.do(jobs.renew, claim, -1)
    assert _runs_out(house, claim), "nobody renews any more"


def test_it_is_renewed_again_and_again(house: House) -> None:
    claim = house.running()
    with _lease(house, claim, lease_seconds=3):
        for _ in range(2):
            house.do(jobs.renew, claim, -1)
            wait_for(lambda: not _runs_out(house, claim), what="a renewal")


def test_a_cancel_is_heard_by_its_nudge_long_before_a_renewal(house: House) -> None:
    claim = house.running(lease_seconds=-1)
    with _lease(house, claim, lease_seconds=6000) as lease:
        wait_for(lambda: not _runs_out(house, claim), what="the first renewal")
        house.cancel(claim.job_id)
        assert wait_for(lambda: lease.renewal.asked.stop, seconds=10, what="the nudge") == "cancel"


@pytest.mark.timeout(60)
def test_a_cancel_is_heard_without_redis_by_the_next_renewal(engine: sa.Engine) -> None:
    with redis_server() as server:
        house = House(UnitOfWork(engine, LiveLog(server.url), Bell(server.url)))
        claim = house.running()
        server.kill()
        with _lease(house, claim, lease_seconds=3) as lease:
            house.cancel(claim.job_id)
            assert wait_for(lambda: lease.renewal.asked.stop, what="a renewal") == "cancel"


def test_a_fence_that_is_gone_is_a_lost_lease(house: House) -> None:
    claim = house.running()
    with _lease(house, claim, lease_seconds=3) as lease:
        house.do(jobs.lose, claim.job_id, claim.fence, LOST)
        wait_for(lambda: lease.lost, what="the loss")
    assert house.job(claim.job_id).status == "queued"


def test_without_the_database_it_is_given_up_in_time_and_not_before(house: House, engine: sa.Engine) -> None:
    claim = house.running()
    patient = _lease(house, claim, lease_seconds=30)
    with _lease(house, claim, lease_seconds=1) as lease, patient:
        with away(engine):
            wait_for(lambda: lease.lost, what="the surrender")
            assert not patient.lost, "an outage alone is no loss"
        house.cancel(claim.job_id)
        assert wait_for(lambda: patient.renewal.asked.stop, what="a renewal after the outage") == "cancel"
        assert not patient.lost
