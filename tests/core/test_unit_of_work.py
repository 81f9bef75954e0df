"""Only a commit tells the world: what is rolled back is never heard of."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlmodel import Session, select

from core import jobs
from core.dispatch import QUEUE, Bell
from core.live_log import LiveLog, nudge_key, stream_key
from core.models import Job
from core.unit_of_work import UnitOfWork
from tests.house import LOST, House
from tests.services import RedisServer, redis_server


@pytest.fixture(scope="module")
def own_redis() -> Iterator[RedisServer]:
    """A Redis whose queue nobody else rings in."""
    with redis_server() as server:
        yield server


@pytest.fixture
def quiet(engine: sa.Engine, own_redis: RedisServer) -> House:
    """A house with an empty Redis."""
    own_redis.client().flushall()
    return House(UnitOfWork(engine, LiveLog(own_redis.url), Bell(own_redis.url)))


def _rings(server: RedisServer) -> int:
    return int(server.client().llen(QUEUE))


def test_a_commit_publishes_and_rings(quiet: House, own_redis: RedisServer) -> None:
    job = quiet.submit()
    assert _rings(own_redis) == 1
    assert [id_ for id_, _ in own_redis.client().xrange(stream_key(job.id))] == ["0-1"]
    claim = quiet.claim()
    assert claim
    quiet.cancel(job.id)
    assert own_redis.client().exists(nudge_key(job.id))
    assert _rings(own_redis) == 1, "neither a claim nor a cancel makes work"
    quiet.do(jobs.lose, claim.job_id, claim.fence, LOST)
    live = [fields["e"] for _, fields in own_redis.client().xrange(stream_key(job.id))]
    assert live == [event.to_json() for event in quiet.log(job.id)]
    assert _rings(own_redis) == 1, "it is cancelled, not queued"
    again = quiet.running()
    quiet.do(jobs.stop, again, "drained")
    assert _rings(own_redis) == 3


def test_a_rolled_back_transaction_is_never_heard_of(quiet: House, own_redis: RedisServer) -> None:
    def fail() -> None:
        with quiet.work.begin() as session:
            job, _ = quiet.submit_in(session)
            assert jobs.claim(session, worker="w", claim_id="c", lease_seconds=90)
            jobs.request_cancel(session, quiet.owner_id, job.id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert own_redis.client().keys() == []
    with quiet.work.reading() as session:
        assert session.exec(select(Job.id)).all() == []


def test_nothing_is_heard_before_the_commit(quiet: House, own_redis: RedisServer) -> None:
    with quiet.work.begin() as session:
        job, _ = quiet.submit_in(session)
        session.flush()
        assert own_redis.client().keys() == []
    assert own_redis.client().exists(stream_key(job.id))


def test_a_failed_commit_is_never_heard_of(quiet: House, own_redis: RedisServer) -> None:
    def fail(_: Session) -> None:
        raise sa.exc.OperationalError("COMMIT", None, ConnectionError("the link was cut"))

    def submit() -> None:
        with quiet.work.begin() as session:
            sa.event.listen(session, "before_commit", fail)
            quiet.submit_in(session)

    with pytest.raises(sa.exc.OperationalError):
        submit()
    assert own_redis.client().keys() == []


@pytest.mark.timeout(60)
def test_a_commit_stands_whether_or_not_redis_lives(engine: sa.Engine) -> None:
    with redis_server() as server:
        house = House(UnitOfWork(engine, LiveLog(server.url), Bell(server.url)))
        server.kill()
        claim = house.running()
        house.cancel(claim.job_id)
    assert house.told(claim.job_id) == ["submitted", "started"]
    assert house.job(claim.job_id).stop_requested == "cancel"
