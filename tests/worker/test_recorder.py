"""Facts become events: once, in order, the same on the live tail and in SQL, whatever the database does meanwhile."""

from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from core import jobs
from core.database import OUTAGES
from core.errors import FenceLost
from core.jobs import Claim
from core.live_log import stream_key
from core.models import JobTag
from tests.house import LOST, House
from tests.outage import away, commits_are_in_doubt, commits_fail
from tests.services import RedisServer
from worker.recorder import Recorder
from worker.training.facts import Alive, Batch, Epoch, Planned, Preparing, Sample, Warned


@pytest.fixture
def claim(house: House) -> Claim:
    """A claimed job."""
    return house.running()


@pytest.fixture
def recorder(house: House, claim: Claim) -> Recorder:
    """The writer of its log."""
    return Recorder(claim, house.job(claim.job_id), house.work)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The recorder's clock: set `now`."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("worker.recorder.time", clock)
    return clock


def _batch(number: int, **fields: Any) -> Batch:
    numbers = {"epoch": 1, "batch": number, "step": number, "loss": 1.5, "accuracy": 0.25, "learning_rate": 1e-3}
    return Batch(**numbers | {"tokens": 7} | fields)  # type: ignore[arg-type]


def _plan(steps: int, *warnings: str) -> Planned:
    return Planned(
        parameters=5,
        vocab_size=5,
        rows=5,
        validation_rows=5,
        skipped_rows=5,
        sequences=5,
        dropped_sequences=5,
        batches_per_epoch=5,
        steps=steps,
        tokens_per_epoch=5,
        padding=0.0,
        warnings=list(warnings),
    )


def _live(redis: RedisServer, claim: Claim) -> list[str]:
    return [fields["e"] for _, fields in redis.client().xrange(stream_key(claim.job_id))]


def _stored(house: House, claim: Claim) -> list[str]:
    return [event.to_json() for event in house.log(claim.job_id)]


FACTS = [
    Preparing(phase="tokens", done=1, total=2),
    Warned(code="x", message="é"),
    _batch(1),
    _batch(2, loss=None, accuracy=None, grad_norm=None, tokens_per_second=10.0),
    _batch(3, grad_norm=0.5, tokens_per_second=11.0),
    Sample(epoch=1, prompt="a", text="\x00 \u2028"),
    Epoch(
        epoch=1,
        step=3,
        loss=1.0,
        accuracy=None,
        validation_loss=2.0,
        validation_accuracy=0.5,
        perplexity=7.4,
        seconds=1.0,
    ),
]


def test_a_fact_is_live_at_once_and_in_sql_after_a_flush_the_same(
    house: House, recorder: Recorder, claim: Claim, redis: RedisServer
) -> None:
    for number, fact in enumerate(FACTS, start=1):
        recorder.write(fact)
        assert len(_live(redis, claim)) == 2 + number
    assert house.told(claim.job_id) == ["submitted", "started"]
    recorder.flush()
    assert _stored(house, claim) == _live(redis, claim)
    log = house.log(claim.job_id)
    assert [str(event.cursor) for event in log[1:]] == [f"{claim.fence}-{seq}" for seq in range(1, 9)]
    assert log[4].data == {k: v for k, v in FACTS[2].model_dump().items() if k not in ("fact", *_WINDOW)}
    assert {k: log[5].data[k] for k in _WINDOW} == {"grad_norm": None, "tokens_per_second": 10.0}


_WINDOW = ("grad_norm", "tokens_per_second")


def test_the_row_shows_how_far_the_run_is(house: House, recorder: Recorder, claim: Claim) -> None:
    recorder.plan(_plan(4, "a warning"))
    job = house.job(claim.job_id)
    assert (job.plan["steps"], job.plan["warnings"]) == (4, ["a warning"])
    assert house.log(claim.job_id)[-1].data == {"code": "plan", "message": "a warning"}
    for fact in FACTS:
        recorder.write(fact)
    recorder.flush()
    job = house.job(claim.job_id)
    assert job.progress
    assert (job.progress["epoch"], job.progress["batch"], job.progress["step"]) == (1, 3, 3)
    assert (job.progress["fraction"], job.progress["tokens_per_second"]) == (0.75, 11.0)
    assert job.progress["eta_seconds"] >= 0
    assert job.latest == {
        "loss": 1.5,
        "accuracy": 0.25,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "validation_loss": 2.0,
    }


def test_the_time_left_counts_the_updates_that_are_not_told(
    house: House, clock: SimpleNamespace, recorder: Recorder, claim: Claim
) -> None:
    recorder.plan(_plan(100))
    recorder.write(_batch(10, tokens_per_second=1.0))
    clock.now = 105.0
    recorder.write(_batch(20, tokens_per_second=1.0))
    recorder.flush()
    progress = house.job(claim.job_id).progress
    assert progress
    assert progress["eta_seconds"] == 80 * 5.0 / 10


def test_a_sign_of_life_moves_the_progress_and_writes_no_event(house: House, recorder: Recorder, claim: Claim) -> None:
    recorder.plan(_plan(100))
    before = house.log(claim.job_id)
    for step in (20, 40):
        recorder.follow(Alive(epoch=2, step=step))
    recorder.flush()
    progress = house.job(claim.job_id).progress
    assert progress
    assert (progress["epoch"], progress["step"], progress["fraction"]) == (2, 40, 0.4)
    assert progress["eta_seconds"] >= 0
    assert house.log(claim.job_id) == before


def test_the_memory_is_asked_for_rarely(house: House, clock: SimpleNamespace, recorder: Recorder, claim: Claim) -> None:
    recorder.plan(_plan(100))
    asked = iter([5, 7])

    def shown(after: float) -> int | None:
        clock.now += after
        assert recorder.flush_if_due(lambda: next(asked))
        progress = house.job(claim.job_id).progress
        return progress["memory_bytes"] if progress else None

    assert shown(after=1.5) is None, "there is no progress yet"
    recorder.write(_batch(1, tokens_per_second=1.0))
    assert [shown(after=1.5) for _ in range(8)] == [5, 5, 5, 5, 5, 5, 5, 7]
    assert not recorder.flush_if_due(lambda: next(asked))


def test_what_the_row_shows_already_is_not_written_again(
    house: House, clock: SimpleNamespace, recorder: Recorder
) -> None:
    commits: list[object] = []
    sa.event.listen(house.work.engine, "commit", commits.append)
    expected = 0
    for fact, news in ((None, 1), (None, 0), (Alive(epoch=1, step=1), 1), (None, 0), (_batch(2), 1), (None, 0)):
        clock.now += 1.0
        if isinstance(fact, Alive):
            recorder.follow(fact)
        elif fact is not None:
            recorder.write(fact)
        assert recorder.flush_if_due(lambda: None)
        expected += news
        assert len(commits) == expected


def test_who_lost_the_job_writes_nothing(house: House, recorder: Recorder, claim: Claim) -> None:
    recorder.write(_batch(1))
    house.do(jobs.lose, claim.job_id, claim.fence, LOST)
    before = (_stored(house, claim), house.job(claim.job_id))
    for write in (
        recorder.flush,
        lambda: recorder.plan(_plan(3)),
        lambda: recorder.write_with("x", {}, lambda session: _add_tag(session, house, claim)),
    ):
        with pytest.raises(FenceLost):
            write()
    assert (_stored(house, claim), house.job(claim.job_id)) == before


def test_an_outage_forgets_nothing(house: House, recorder: Recorder, claim: Claim, redis: RedisServer) -> None:
    recorder.write(_batch(1))
    with away(house.work.engine), pytest.raises(OUTAGES):
        recorder.flush()
    recorder.write(_batch(2))
    with commits_fail(), pytest.raises(OUTAGES):
        recorder.flush()
    recorder.write(_batch(3))
    recorder.flush()
    recorder.flush()
    assert _stored(house, claim) == _live(redis, claim)
    assert house.told(claim.job_id)[2:] == ["batch"] * 3


def test_a_flush_in_doubt_is_repeated_without_a_trace(
    house: House, recorder: Recorder, claim: Claim, redis: RedisServer
) -> None:
    recorder.write(_batch(1))
    with commits_are_in_doubt(), pytest.raises(OUTAGES):
        recorder.flush()
    recorder.write(_batch(2))
    recorder.flush()
    assert _stored(house, claim) == _live(redis, claim)
    assert house.told(claim.job_id)[2:] == ["batch"] * 2


def _add_tag(session: Session, house: House, claim: Claim) -> None:
    session.merge(JobTag(job_id=claim.job_id, tag="a:b", owner_id=house.owner_id))


def test_an_event_and_its_rows_come_together_or_not_at_all(
    house: House, recorder: Recorder, claim: Claim, redis: RedisServer
) -> None:
    def also(session: Session) -> None:
        _add_tag(session, house, claim)

    recorder.write(_batch(1))
    with commits_fail(), pytest.raises(OUTAGES):
        recorder.write_with("checkpoint", {"step": 1}, also, failures=0)
    assert house.told(claim.job_id) == ["submitted", "started"]
    assert len(_live(redis, claim)) == 3
    recorder.write(_batch(2))
    recorder.write_with("checkpoint", {"step": 1}, also, failures=0)
    recorder.write(_batch(3))
    recorder.flush()
    assert sorted(house.told(claim.job_id)[2:]) == ["batch", "batch", "batch", "checkpoint"]
    stored = _stored(house, claim)
    assert [line for line in stored if line in _live(redis, claim)] == _live(redis, claim)
    with house.work.reading() as session:
        assert session.get(JobTag, (claim.job_id, "a:b"))


@pytest.mark.parametrize("told_meanwhile", [0, 1])
def test_an_event_whose_commit_was_in_doubt_is_written_once(
    house: House, recorder: Recorder, claim: Claim, told_meanwhile: int
) -> None:
    recorder.write(_batch(1))
    with commits_are_in_doubt(), pytest.raises(OUTAGES):
        recorder.write_with("checkpoint", {"step": 1}, lambda _: None)
    for number in range(told_meanwhile):
        recorder.write(_batch(2 + number))
    recorder.write_with("checkpoint", {"step": 1}, lambda _: None)
    recorder.flush()
    told = house.told(claim.job_id)[2:]
    assert sorted(told) == ["batch"] * (1 + told_meanwhile) + ["checkpoint"], "no event lost, none twice"


def test_a_reader_s_thread_and_the_supervisor_s_do_not_meet(
    house: House, recorder: Recorder, claim: Claim, redis: RedisServer
) -> None:
    def tell() -> None:
        for number in range(1, 301):
            recorder.write(_batch(number))

    teller = Thread(target=tell)
    teller.start()
    while teller.is_alive():
        recorder.flush()
        recorder.write_with("checkpoint", {}, lambda _: None)
    teller.join()
    recorder.flush()
    log = house.log(claim.job_id)
    assert _stored(house, claim) == _live(redis, claim)
    assert [event.data["batch"] for event in log if event.type == "batch"] == list(range(1, 301))
    assert [event.cursor.seq for event in log[1:]] == list(range(1, len(log)))
