"""Any order of moves at all, against a small model of what a job may do."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core import jobs
from core.database import connect
from core.dispatch import Bell
from core.errors import CancelRequested, Conflict, FenceLost
from core.job_states import TERMINAL
from core.jobs import Claim
from core.live_log import LiveLog
from core.unit_of_work import UnitOfWork
from tests.house import LOST, House
from tests.services import RedisServer

MAX_FAILURES = 2  # so that the budget is often spent


class Life(RuleBasedStateMachine):
    """One job, every claim ever won of it, and what the model says of it."""

    work: UnitOfWork
    house: House

    @initialize()
    def submit(self) -> None:
        self.job_id = self.house.submit(max_failures=MAX_FAILURES, priority=1000).id
        self.claims: list[Claim] = []
        self.status, self.asked, self.failures, self.step, self.events = "queued", False, 0, 0, 1
        self.fence = 0

    # The model ---------------------------------------------------------------------------------------------------

    def moved(self, status: str) -> None:
        self.status, self.asked = status, False
        self.fence += 1
        self.events += 1

    def holds(self, claim: Claim) -> bool:
        return self.status == "running" and claim.fence == self.fence

    def attempt(self, claim: Claim, there: str, move: Any, *arguments: Any, cancellable: bool = True) -> None:
        if not self.holds(claim):
            with pytest.raises(FenceLost):
                self.house.do(move, *arguments)
        elif cancellable and self.asked:
            with pytest.raises(CancelRequested):
                self.house.do(move, *arguments)
        else:
            self.house.do(move, *arguments)
            self.moved(there)

    def pick(self, data: st.DataObject) -> Claim:
        return data.draw(st.sampled_from(self.claims))

    # The moves ---------------------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        won = self.house.claim()
        if self.status == "queued":
            self.moved("running")
            assert won == Claim(self.job_id, self.fence, len(self.claims) + 1)
            self.claims.append(won)
        else:
            assert won is None

    @rule()
    def ask_for_cancel(self) -> None:
        if self.status in TERMINAL:
            with pytest.raises(Conflict):
                self.house.cancel(self.job_id)
            return
        self.house.cancel(self.job_id)
        if self.status == "queued":
            self.moved("cancelled")
        else:
            self.asked = True

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        if self.holds(claim):
            assert self.house.do(jobs.renew, claim, 90.0) == ("cancel" if self.asked else None)
        else:
            with pytest.raises(FenceLost):
                self.house.do(jobs.renew, claim, 90.0)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        if self.holds(claim):
            self.step += 1
            self.house.publish(claim, self.step)
            self.house.do(jobs.record, claim, [], failures=0)
            self.failures = 0
        else:
            with pytest.raises(FenceLost):
                self.house.publish(claim, self.step + 1)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        self.attempt(claim, "queued", jobs.requeue, claim, "drained")

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        holds = self.holds(claim)
        there = "failed" if self.failures + 1 == MAX_FAILURES else "queued"
        there = "cancelled" if self.asked else there
        self.attempt(claim, there, jobs.lose, claim.job_id, claim.fence, LOST, cancellable=False)
        self.failures += holds

    @precondition(lambda self: self.claims and self.step)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        self.attempt(claim, "succeeded", jobs.succeed, claim, self.step)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        self.attempt(claim, "failed", jobs.fail, claim, LOST)

    @precondition(lambda self: self.claims and (self.asked or self.status != "running"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        self.attempt(claim, "cancelled", jobs.cancel, claim, cancellable=False)

    # What always holds -------------------------------------------------------------------------------------------

    @invariant()
    def the_row_and_the_log_say_what_the_model_says(self) -> None:
        job, log = self.house.job(self.job_id), self.house.log(self.job_id)
        assert (job.status, job.fence, job.failures) == (self.status, self.fence, self.failures)
        assert (job.stop_requested == "cancel") == self.asked
        assert (job.finished_at is not None) == (self.status in TERMINAL)
        assert (job.lease_expires_at is not None) == (self.status == "running")
        assert len(log) == self.events
        assert log[-1].cursor.fence == self.fence
        assert [event.terminal for event in log] == [False] * (len(log) - 1) + [self.status in TERMINAL]

    def teardown(self) -> None:
        """Leave no job that the next run could claim."""
        if hasattr(self, "job_id") and self.status not in TERMINAL:
            self.house.cancel(self.job_id)
            if self.status == "running":
                self.house.do(jobs.cancel, Claim(self.job_id, self.fence, 0))


def test_no_order_of_moves_leads_astray(migrated_sqlite: Path, redis: RedisServer) -> None:
    folder = Path(mkdtemp(prefix="epochd-life-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    shutil.copy(migrated_sqlite, folder / "epochd.sqlite3")
    engine = connect(f"sqlite:///{folder}/epochd.sqlite3")
    try:
        Life.work = UnitOfWork(engine, LiveLog(redis.url), Bell(redis.url))
        Life.house = House(Life.work)
        run_state_machine_as_test(
            Life,
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        engine.dispose()
        shutil.rmtree(folder)
