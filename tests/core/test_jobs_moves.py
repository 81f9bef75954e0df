"""The moves of a job: each guarded by the fence, each with its event, none out of an end."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from core import checkpoints, job_queries, jobs
from core.errors import CancelRequested, Conflict, EpochdError, FenceLost
from core.events import Cursor, Event
from core.job_states import StopRequest
from core.jobs import Asked, Claim, JobError
from core.models import utc_now
from tests.house import LOST, House, a_checkpoint

BROKEN = JobError("data", "Bad rows.", "Mend them.")


def test_the_queue_is_by_priority_and_then_by_age(house: House) -> None:
    a, b, c, d = (house.submit(priority=priority).id for priority in (0, 7, 0, 7))
    order = sorted([b, d]) + sorted([a, c])
    assert [claim.job_id for _ in range(4) if (claim := house.claim())] == order
    assert house.claim() is None


def test_a_requeued_job_keeps_its_place(house: House) -> None:
    first = house.running()
    house.submit()
    house.do(jobs.stop, first, "drained")
    again = house.claim()
    assert again
    assert (again.job_id, again.attempt, again.fence > first.fence) == (first.job_id, 2, True)


def test_threads_claim_every_job_exactly_once(house: House) -> None:
    with house.work.begin() as session:
        made = {house.submit_in(session)[0].id for _ in range(60)}

    def claim_all(_: int) -> list[str]:
        won = []
        while claim := house.claim():
            won.append(claim.job_id)
        return won

    with ThreadPoolExecutor(20) as pool:
        won = [job_id for part in pool.map(claim_all, range(20)) for job_id in part]
    assert len(won) == 60
    assert set(won) == made


def _stale_moves() -> dict[str, Callable[[Session, Claim], object]]:
    event = Event(Cursor(1, 99), "warning", utc_now(), {})
    return {
        "renew": lambda session, claim: jobs.renew(session, claim, 90.0),
        "record": lambda session, claim: jobs.record(session, claim, [event], progress={"step": 9}),
        "stop": lambda session, claim: jobs.stop(session, claim, "drained"),
        "lose": lambda session, claim: jobs.lose(session, claim.job_id, claim.fence, LOST),
        "succeed": lambda session, claim: jobs.succeed(session, claim, 1),
        "fail": lambda session, claim: jobs.fail(session, claim, BROKEN),
    }


def _everything(house: House) -> list[object]:
    with house.work.engine.connect() as connection:
        return [
            sorted(map(str, connection.execute(sa.text(f"SELECT * FROM {table}"))))
            for table in ("jobs", "events", "checkpoints")
        ]


@pytest.mark.parametrize("situation", ["queued again", "another's", "ended"])
def test_a_stale_fence_writes_nothing_at_all(house: House, situation: str) -> None:
    claim = house.running()
    house.publish(claim, 1)
    if situation == "ended":
        house.do(jobs.succeed, claim, 1)
    else:
        house.do(jobs.stop, claim, "drained")
        if situation == "another's":
            assert house.claim()
    before = _everything(house)
    for name, move in _stale_moves().items():
        with pytest.raises(FenceLost):
            house.do(move, claim)
        assert _everything(house) == before, name


def test_a_fence_of_the_future_and_an_unknown_job_are_stale_too(house: House) -> None:
    claim = house.running()
    house.publish(claim, 1)
    before = _everything(house)
    for name, move in _stale_moves().items():
        with pytest.raises(FenceLost):
            house.do(move, Claim(claim.job_id, claim.fence + 1, 1))
        with pytest.raises(EpochdError):  # FenceLost, or for `succeed` that there is no checkpoint
            house.do(move, Claim("job_none", 1, 1))
        assert _everything(house) == before, name


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_an_end_is_the_end(house: House, end: str) -> None:
    claim = house.running()
    house.publish(claim, 1)
    if end == "succeeded":
        house.do(jobs.succeed, claim, 1)
    elif end == "failed":
        house.do(jobs.fail, claim, BROKEN)
    else:
        house.cancel(claim.job_id)
        house.do(jobs.stop, claim, "drained")
    job = house.job(claim.job_id)
    assert (job.status, job.stop_requested, job.worker, job.claim_id) == (end, None, None, None)
    assert job.lease_expires_at is None
    assert job.finished_at
    assert job.started_at
    assert house.told(claim.job_id)[-1] == end
    before = _everything(house)
    with pytest.raises(Conflict, match=end):
        house.cancel(claim.job_id)
    held = Claim(claim.job_id, job.fence, claim.attempt)  # even who guesses the fence
    for name, move in _stale_moves().items():
        with pytest.raises(FenceLost):
            house.do(move, held)
        assert _everything(house) == before, name
    assert house.claim() is None
    with house.work.begin() as session:
        assert job_queries.expired(session) == []


def test_every_move_makes_the_fence_grow_and_the_log_goes_on_in_order(house: House) -> None:
    claim = house.running()
    house.publish(claim, 5)
    house.do(jobs.lose, claim.job_id, claim.fence, LOST)
    second = house.claim()
    assert second
    house.do(jobs.stop, second, "drained")
    third = house.claim()
    assert third
    house.publish(third, 6)
    house.do(jobs.succeed, third, 6)
    log = house.log(claim.job_id)
    assert [event.type for event in log] == [
        "submitted",
        "started",
        "requeued",
        "started",
        "requeued",
        "started",
        "succeeded",
    ]
    assert [event.cursor for event in log] == sorted({event.cursor for event in log})
    assert [event.data.get("from_step") for event in log if event.type == "started"] == [0, 5, 5]
    assert log[2].data == {"reason": "worker_lost", "message": LOST.message, "failures": 1}
    assert third.attempt == 3


def test_success_needs_a_published_checkpoint_of_its_last_step(house: House) -> None:
    claim = house.running()
    for step in (0, 3):
        with pytest.raises(EpochdError, match="without a published checkpoint"):
            house.do(jobs.succeed, claim, step)
    house.publish(claim, 2)
    with pytest.raises(EpochdError, match="without a published checkpoint"):
        house.do(jobs.succeed, claim, 3)
    assert house.job(claim.job_id).status == "running"
    house.publish(claim, 3)
    house.do(jobs.succeed, claim, 3)
    assert house.job(claim.job_id).status == "succeeded"


def test_losses_are_budgeted_and_the_last_one_fails_the_job_with_its_reason(house: House) -> None:
    house.submit(max_failures=3)
    for failures in (1, 2, 3):
        claim = house.claim()
        assert claim
        status = house.do(jobs.lose, claim.job_id, claim.fence, LOST)
        job = house.job(claim.job_id)
        assert (job.status, job.failures) == (status, failures)
        assert status == ("failed" if failures == 3 else "queued")
        assert job.error == (LOST.document() if failures == 3 else None)
    assert house.log(claim.job_id)[-1].data == LOST.document()


def test_a_checkpoint_makes_the_budget_whole(house: House) -> None:
    house.submit(max_failures=2)
    for _ in range(4):
        claim = house.claim()
        assert claim
        house.do(jobs.record, claim, [], failures=0)
        assert house.do(jobs.lose, claim.job_id, claim.fence, LOST) == "queued"


def test_a_drain_costs_no_failure(house: House) -> None:
    house.submit(max_failures=1)
    for _ in range(3):
        claim = house.claim()
        assert claim
        house.do(jobs.stop, claim, "drained")
    job = house.job(claim.job_id)
    assert (job.status, job.failures, job.attempt) == ("queued", 0, 3)


def test_a_queued_job_is_cancelled_at_once(house: House) -> None:
    job = house.submit()
    assert house.cancel(job.id).status == "cancelled"
    assert house.told(job.id) == ["submitted", "cancelled"]
    assert house.claim() is None


def test_a_running_job_is_asked_and_every_other_end_is_refused(house: House) -> None:
    claim = house.running()
    house.publish(claim, 1)
    asked = house.cancel(claim.job_id)
    assert (asked.status, asked.stop_requested) == ("running", "cancel")
    assert house.do(jobs.renew, claim, 90.0) == Asked(stop=StopRequest.CANCEL, save=False)
    before = _everything(house)
    for move in ("succeed", "fail"):
        with pytest.raises(CancelRequested):
            house.do(_stale_moves()[move], claim)
        assert _everything(house) == before, move
    assert house.cancel(claim.job_id).stop_requested == "cancel", "asking again is no error"
    house.do(jobs.stop, claim, "drained")
    assert house.job(claim.job_id).status == "cancelled"


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(house: House) -> None:
    claim = house.running()
    house.cancel(claim.job_id)
    assert house.do(jobs.lose, claim.job_id, claim.fence, LOST) == "cancelled"
    assert house.job(claim.job_id).status == "cancelled"


def test_cancel_against_the_end_leaves_only_legal_outcomes(house: House) -> None:
    seen = set()
    with house.work.begin() as session:
        for _ in range(120):
            house.submit_in(session)
    with ThreadPoolExecutor(2) as pool:
        for round_ in range(120):
            with house.work.begin() as session:
                claim = jobs.claim(session, worker="w", claim_id=uuid4().hex, lease_seconds=90)
                assert claim
                checkpoints.add(session, a_checkpoint(claim, 1))
            move = ("succeed", "fail", "stop")[round_ % 3]

            def ask(job_id: str = claim.job_id) -> str:
                try:
                    return house.cancel(job_id).status
                except Conflict:
                    return "refused"

            def end(claim: Claim = claim, move: str = move) -> None:
                try:
                    house.do(_stale_moves()[move], claim)
                except CancelRequested:
                    house.do(jobs.stop, claim, "drained")

            asked, ended = pool.submit(ask), pool.submit(end)
            ended.result()
            outcome, status = asked.result(), house.job(claim.job_id).status
            seen.add((move, outcome, status))
            assert house.told(claim.job_id)[-1] == status
    moved = {"succeed": "succeeded", "fail": "failed"}
    for move, outcome, status in seen:
        assert status == ("cancelled" if outcome != "refused" else moved[move]), (move, outcome, status)
    assert {move for move, _, _ in seen} == {"succeed", "fail", "stop"}


def test_a_lease_is_measured_by_the_database_alone(house: House) -> None:
    late, good = house.running(lease_seconds=-1), house.running(lease_seconds=60)
    with house.work.begin() as session:
        assert [job.id for job in job_queries.expired(session)] == [late.job_id]
    house.do(jobs.renew, late, 60)
    house.do(jobs.renew, good, -0.01)
    with house.work.begin() as session:
        assert [job.id for job in job_queries.expired(session)] == [good.job_id]
    house.do(jobs.lose, good.job_id, good.fence, LOST)
    with house.work.begin() as session:
        assert job_queries.expired(session) == []


def test_two_that_expire_at_once_lose_a_job_once(house: House) -> None:
    claims = [house.running(lease_seconds=-1) for _ in range(10)]

    def expire(_: int) -> None:
        with house.work.begin() as session:
            for job in job_queries.expired(session):
                jobs.lose(session, job.id, job.fence, LOST)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(expire, range(4)))
    expire(0)
    for claim in claims:
        assert house.job(claim.job_id).failures == 1
        assert house.told(claim.job_id) == ["submitted", "started", "requeued"]


def test_held_by_takes_the_prefix_literally(house: House) -> None:
    names = ["my_host:1:2:3", "myXhost:1:2:3", "MY_HOST:1:2:3", "other:my_host:1:2"]
    claims = {name: house.running(worker=name) for name in names}
    with house.work.begin() as session:
        assert [job.id for job in job_queries.held_by(session, "my_host:1:")] == [claims["my_host:1:2:3"].job_id]
        assert job_queries.held_by(session, "%") == []


def test_a_claim_whose_commit_was_in_doubt_is_found_again(house: House) -> None:
    job, claim_id, never = house.submit(), uuid4().hex, uuid4().hex
    with house.work.begin() as session:
        claim = jobs.claim(session, worker="w", claim_id=claim_id, lease_seconds=90)
    assert claim
    with house.work.reading() as session:
        assert jobs.recover_claim(session, claim_id) == claim == Claim(job.id, 1, 1)
        assert jobs.recover_claim(session, never) is None
    house.do(jobs.stop, claim, "drained")
    assert house.claim()
    with house.work.reading() as session:
        assert jobs.recover_claim(session, claim_id) is None, "it was taken since"


def test_claimable_says_whether_a_job_waits(house: House) -> None:
    def waiting() -> bool:
        with house.work.reading() as session:
            return job_queries.claimable(session)

    assert not waiting()
    claim = house.running()
    assert not waiting()
    house.do(jobs.stop, claim, "drained")
    assert waiting()
