"""A real worker is asked to pause, to save, to go on: nothing that was done is lost, and nothing done twice differs."""

import signal
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from core import jobs
from core.models import Dataset, Job
from tests.installation import LONG, Installation, trainer_of, trainers
from tests.services import wait_for
from tests.worker.conftest import AtWork

# The moves themselves are tested on both databases in tests/core; here the processes are what is tried.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ENDLESS = {"training": {"epochs": 10_000, "batch_size": 4}, "checkpoints": {"every_epochs": 9999}}


def ask(installation: Installation, move: Callable[..., Job], job_id: str) -> Job:
    with installation.work.begin() as session:
        return move(session, installation.owner, job_id)


def told(installation: Installation, job_id: str) -> list[str]:
    kinds = [event.type for event in installation.log(job_id)]
    return [kind for kind in kinds if kind not in ("batch", "epoch", "preparing", "checkpoint")]


def test_a_paused_job_frees_its_place_and_goes_on_to_the_same_bits(at_work: AtWork, undisturbed_weights: str) -> None:
    installation, dataset = at_work.installation, at_work.dataset
    job_id = installation.submit(dataset, **LONG)
    installation.wait_for_batch(job_id, 25)
    assert ask(installation, jobs.request_pause, job_id).stop_requested == "pause"
    job = installation.wait_for_status(job_id, "paused", "succeeded", "failed")
    assert (job.status, job.failures, job.finished_at, job.stop_requested) == ("paused", 0, None, None)
    assert installation.checkpoints(job_id)[0].step == job.progress["step"]
    other = installation.submit(dataset, training={"epochs": 1})
    assert installation.wait_for_status(other, "succeeded", "failed").status == "succeeded"
    assert installation.job(job_id).status == "paused"
    ask(installation, jobs.resume, job_id)
    assert installation.wait_for_status(job_id, "succeeded", "failed").status == "succeeded"
    assert told(installation, job_id) == [
        *("submitted", "started", "warning", "paused", "resumed", "started", "succeeded")
    ]
    assert installation.weights(job_id) == undisturbed_weights


def test_saved_now_the_job_goes_on_and_ends_in_the_same_bits(at_work: AtWork, undisturbed_weights: str) -> None:
    installation, dataset = at_work.installation, at_work.dataset
    # Nothing else is due before the end: one that is could answer a request as well.
    job_id = installation.submit(dataset, **LONG | {"checkpoints": {"every_epochs": 1000}})
    for asked in (1, 2):
        installation.wait_for_batch(job_id, 10 * asked)
        assert ask(installation, jobs.request_save, job_id).save_requested
        wait_for(lambda: not installation.job(job_id).save_requested, what="the answer")
    job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 1)
    told_steps = [event.data["step"] for event in installation.log(job_id) if event.type == "checkpoint"]
    assert told_steps[-1] == job.plan["steps"]
    assert len(told_steps[:-1]) == 2, "one for each request, and no more"
    assert installation.weights(job_id) == undisturbed_weights


@on_sqlite
def test_a_pause_that_the_trainer_does_not_answer_is_a_kill_and_says_so(
    installation: Installation, dataset: Dataset
) -> None:
    with installation.worker(EPOCHD_STOP_GRACE_SECONDS="1") as worker:
        job_id = installation.submit(dataset, **ENDLESS)
        installation.wait_for_batch(job_id, 5)
        frozen = trainer_of(worker)
        frozen.send_signal(signal.SIGSTOP)
        ask(installation, jobs.request_pause, job_id)
        job = installation.wait_for_status(job_id, "paused", "failed", "succeeded")
        psutil.wait_procs([frozen], timeout=10)
        assert frozen not in trainers()
    assert (job.status, job.failures) == ("paused", 0)
    assert installation.checkpoints(job_id) == []
    warnings = [event.data for event in installation.log(job_id) if event.type == "warning"]
    assert "EPOCHD_STOP_GRACE_SECONDS" in warnings[-1]["message"]


def test_a_failed_job_is_retried_from_its_last_checkpoint(at_work: AtWork, undisturbed_weights: str) -> None:
    installation, dataset, worker = at_work.installation, at_work.dataset, at_work.worker
    job_id = installation.submit(dataset, **LONG, max_failures=1)
    wait_for(lambda: installation.checkpoints(job_id), seconds=60, what="a checkpoint")
    trainer_of(worker).kill()
    job = installation.wait_for_status(job_id, "failed", "succeeded")
    assert (job.status, job.error["code"]) == ("failed", "worker_lost")
    saved = installation.checkpoints(job_id)[0].step
    ask(installation, partial(jobs.retry, settings=installation.settings), job_id)
    job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert (job.status, job.attempt, job.error) == ("succeeded", 2, None)
    starts = [event.data["from_step"] for event in installation.log(job_id) if event.type == "started"]
    assert starts == [0, saved]
    assert installation.weights(job_id) == undisturbed_weights


def test_a_deleted_job_is_removed_by_whatever_worker_there_is(at_work: AtWork) -> None:
    installation, dataset = at_work.installation, at_work.dataset
    job_id = installation.submit(dataset)
    installation.wait_for_status(job_id, "succeeded", "failed")
    folder = installation.folder(installation.checkpoints(job_id)[0]).parent
    with installation.work.begin() as session:
        jobs.delete(session, installation.owner, job_id)
    wait_for(lambda: not folder.exists() and not installation.log(job_id), what="the removal")
    with installation.work.reading() as session:
        wait_for(lambda: session.get(Job, job_id, populate_existing=True) is None, what="the row's end")


@pytest.mark.parametrize("request_", [jobs.request_pause, jobs.request_cancel])
def test_a_request_while_the_trainer_still_prepares_is_answered(at_work: AtWork, request_: Callable[..., Job]) -> None:
    installation, dataset = at_work.installation, at_work.dataset
    job_id = installation.submit(dataset, **ENDLESS)
    installation.wait_for_status(job_id, "running")
    ask(installation, request_, job_id)
    job = installation.wait_for_status(job_id, "paused", "cancelled", "failed", "succeeded")
    assert job.status == ("paused" if request_ is jobs.request_pause else "cancelled")
    assert job.failures == 0
