"""Processes that hang, and processes that come back from the dead: one story all the same."""

import signal

import psutil

from core.models import Dataset, Job
from tests.faults.account import account
from tests.installation import LONG, Installation, trainer_of
from tests.services import wait_for


def test_a_hung_trainer_is_killed_counted_and_replaced(
    installation: Installation, dataset: Dataset, undisturbed_weights: str
) -> None:
    with installation.worker(EPOCHD_STALL_SECONDS="12") as worker:
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 20)
        hung = trainer_of(worker)
        hung.send_signal(signal.SIGSTOP)
        wait_for(lambda: installation.job(job_id).attempt == 2, seconds=60, what="a second attempt")
        assert not hung.is_running() or hung.status() == psutil.STATUS_ZOMBIE
        installation.wait_for_status(job_id, "succeeded", "failed")
    (requeued,) = [event.data for event in installation.log(job_id) if event.type == "requeued"]
    assert (requeued["reason"], requeued["failures"]) == ("worker_lost", 1)
    assert "said nothing for 12 s" in requeued["message"]
    account(installation, job_id, undisturbed_weights)


def test_a_worker_that_wakes_up_after_its_lease_changes_nothing(
    installation: Installation, dataset: Dataset, undisturbed_weights: str
) -> None:
    lease = {"EPOCHD_LEASE_SECONDS": "3"}
    with installation.worker(**lease) as asleep:
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 20)
        family = [asleep, *asleep.children(recursive=True)]
        with installation.work.begin() as session:
            # None of them is frozen in the middle of a transaction now: SQLite's one lock would stay with it.
            session.get(Job, job_id)
            for process in family:
                process.send_signal(signal.SIGSTOP)
        with installation.worker(**lease):
            wait_for(lambda: _batches_of_attempt(installation, job_id, 2) > 5, seconds=60, what="the successor's work")
            for process in reversed(family):
                process.send_signal(signal.SIGCONT)
            job = installation.wait_for_status(job_id, "succeeded", "failed")
            assert (job.status, job.attempt) == ("succeeded", 2)
            # Awake and of good sense: it takes the next job, or the other does.
            second = installation.submit(dataset, training={"epochs": 1})
            assert installation.wait_for_status(second, "succeeded", "failed").attempt == 1
    account(installation, job_id, undisturbed_weights)


def _batches_of_attempt(installation: Installation, job_id: str, attempt: int) -> int:
    log = installation.log(job_id)
    starts = [place for place, event in enumerate(log) if event.type == "started"]
    return sum(event.type == "batch" for event in log[starts[attempt - 1] :]) if len(starts) >= attempt else 0
