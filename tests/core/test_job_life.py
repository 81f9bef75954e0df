"""Any order of moves at all, against a small model of what a job may do."""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
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
from core.errors import CancelRequested, Conflict, FenceLost, NotFound
from core.job_states import TERMINAL
from core.jobs import Asked, Claim
from core.live_log import LiveLog
from core.unit_of_work import UnitOfWork
from tests.house import LOST, House
from tests.moves import LEGAL
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
        self.status, self.failures, self.step, self.deleted = "queued", 0, 0, False
        self.asked: str | None = None
        self.save_asked = False
        self.told = ["submitted"]
        self.fence = 0

    # The model ---------------------------------------------------------------------------------------------------

    def moved(self, status: str, told: str = "") -> None:
        self.status, self.asked = status, None
        self.save_asked &= status in ("queued", "running")
        self.fence += 1
        self.told.append(told or {"running": "started", "queued": "requeued"}.get(status, status))

    def holds(self, claim: Claim) -> bool:
        return self.status == "running" and claim.fence == self.fence

    def attempt(self, claim: Claim, there: str, move: Any, *arguments: Any, cancellable: bool = True) -> None:
        if not self.holds(claim):
            with pytest.raises(FenceLost):
                self.house.do(move, *arguments)
        elif cancellable and self.asked == "cancel":
            with pytest.raises(CancelRequested):
                self.house.do(move, *arguments)
        else:
            self.house.do(move, *arguments)
            self.moved(there)

    def asked_for(self, move: Any, *, legal: bool) -> bool:
        """Ask as the job's owner, and say whether it was granted, which it must be where it is legal."""
        if self.deleted:
            with pytest.raises(NotFound):
                self.house.do(move, self.house.owner_id, self.job_id)
        elif not legal:
            with pytest.raises(Conflict):
                self.house.do(move, self.house.owner_id, self.job_id)
        else:
            self.house.do(move, self.house.owner_id, self.job_id)
        return legal and not self.deleted

    def pick(self, data: st.DataObject) -> Claim:
        return data.draw(st.sampled_from(self.claims))

    # What the owner asks for -------------------------------------------------------------------------------------

    @rule()
    def ask_for_cancel(self) -> None:
        if self.asked_for(jobs.request_cancel, legal=self.status not in TERMINAL):
            if self.status == "running":
                self.asked = "cancel"
            else:
                self.moved("cancelled")

    @rule()
    def ask_for_pause(self) -> None:
        running = self.status == "running" and self.asked != "cancel"
        if self.asked_for(jobs.request_pause, legal=self.status == "queued" or running):
            if running:
                self.asked = "pause"
            else:
                self.moved("paused")

    @rule()
    def resume(self) -> None:
        withdrawn = self.status == "running" and self.asked == "pause"
        if self.asked_for(jobs.resume, legal=self.status == "paused" or withdrawn):
            if withdrawn:
                self.asked = None
            else:
                self.moved("queued", "resumed")

    @rule()
    def retry(self) -> None:
        retry = partial(jobs.retry, settings=self.house.limits)
        if self.asked_for(retry, legal=self.status in ("failed", "cancelled")):
            self.moved("queued")
            self.failures = 0

    @rule()
    def ask_for_save(self) -> None:
        if self.asked_for(jobs.request_save, legal=self.status == "running"):
            self.save_asked = True

    # Last in most runs: nothing can be asked of it any more.
    @precondition(lambda self: len(self.told) > 5)
    @rule()
    def delete(self) -> None:
        self.deleted |= self.asked_for(jobs.delete, legal=self.status in TERMINAL)

    # What workers do ---------------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        won = self.house.claim()
        if self.status == "queued":
            self.moved("running")
            assert won == Claim(self.job_id, self.fence, len(self.claims) + 1)
            self.claims.append(won)
        else:
            assert won is None

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        if self.holds(claim):
            assert self.house.do(jobs.renew, claim, 90.0) == Asked(self.asked, self.save_asked)
        else:
            with pytest.raises(FenceLost):
                self.house.do(jobs.renew, claim, 90.0)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ordered=st.booleans())
    def publish(self, data: st.DataObject, ordered: bool) -> None:
        claim = self.pick(data)
        if self.holds(claim):
            self.step += 1
            self.house.publish(claim, self.step)
            self.house.do(jobs.record, claim, [], failures=0, **({"save_requested": False} if ordered else {}))
            self.failures = 0
            self.save_asked &= not ordered
        else:
            with pytest.raises(FenceLost):
                self.house.publish(claim, self.step + 1)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        there = {"cancel": "cancelled", "pause": "paused", None: "queued"}[self.asked]
        claim = self.pick(data)
        self.attempt(claim, there, jobs.stop, claim, "drained", cancellable=False)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        holds = self.holds(claim)
        there = "paused" if self.asked == "pause" else "queued"
        there = "failed" if self.failures + 1 == MAX_FAILURES else there
        there = "cancelled" if self.asked == "cancel" else there
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

    # What always holds -------------------------------------------------------------------------------------------

    @invariant()
    def the_row_and_the_log_say_what_the_model_says(self) -> None:
        job, log = self.house.job(self.job_id), self.house.log(self.job_id)
        assert (job.status, job.fence, job.failures) == (self.status, self.fence, self.failures)
        assert (job.stop_requested, job.save_requested) == (self.asked, self.save_asked)
        assert (job.finished_at is not None) == (self.status in TERMINAL)
        assert (job.error is not None) == (self.status == "failed")
        assert (job.lease_expires_at is not None) == (self.status == "running")
        assert (job.claim_id is not None) == (self.status == "running")
        assert [event.type for event in log] == self.told
        assert [event.cursor.fence for event in log] == list(range(self.fence + 1))
        assert all(there in LEGAL[here] for here, there in pairwise(self.told))

    def teardown(self) -> None:
        """Leave no job that the next run could claim."""
        if hasattr(self, "job_id") and self.status not in TERMINAL:
            self.house.cancel(self.job_id)
            if self.status == "running":
                self.house.do(jobs.stop, Claim(self.job_id, self.fence, 0), "drained")


@pytest.fixture(params=["sqlite", "postgresql"])
def lives(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[UnitOfWork]:
    """A database for hundreds of jobs, without a disk under it where there is a way."""
    folder = Path(mkdtemp(prefix="epochd-life-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), folder / "epochd.sqlite3")
        url = f"sqlite:///{folder}/epochd.sqlite3"
    else:
        url = request.getfixturevalue("postgres").new_database("lives", like="template_epochd")
    work = UnitOfWork(connect(url), LiveLog(redis.url), Bell(redis.url))
    yield work
    work.close()
    shutil.rmtree(folder)


def test_no_order_of_moves_leads_astray(lives: UnitOfWork) -> None:
    Life.work, Life.house = lives, House(lives)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],  # to make a failure's thirty steps fewer takes longer than to read them
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_follows_what_is_what_the_documentation_draws() -> None:
    rows = (Path(__file__).parents[2] / "docs" / "states.md").read_text().splitlines()
    cells = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in rows
        if row.startswith("| `") and "POST" not in row and "DELETE" not in row
    ]
    drawn = {row[0].strip("`"): {name.strip(" `") for name in row[1].split(",")} for row in cells}
    assert drawn == LEGAL
