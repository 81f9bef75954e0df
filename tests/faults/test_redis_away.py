"""Redis may lose anything and be away at any time: the run does not notice, and the next one finds its way."""

import signal

from core.models import Dataset
from tests.faults.account import account
from tests.installation import LONG, Installation
from tests.services import RedisServer, wait_for


def test_a_run_is_undisturbed_by_whatever_happens_to_redis(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, own_redis: RedisServer
) -> None:
    with installation.worker():
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 10)
        own_redis.client().flushall()
        installation.wait_for_batch(job_id, 30)
        own_redis.client().client_kill_filter(_type="normal", skipme=True)
        installation.wait_for_batch(job_id, 50)
        own_redis.kill()
        job = installation.wait_for_status(job_id, "succeeded", "failed")
        assert (job.attempt, job.failures) == (1, 0)
        # Submitted while nobody can ring: it is found by who looks.
        second = installation.submit(dataset, training={"epochs": 1})
        assert installation.wait_for_status(second, "succeeded", "failed").status == "succeeded"
        own_redis.start()
    account(installation, job_id, undisturbed_weights)


def test_connections_that_keep_breaking_start_nothing_twice(
    installation: Installation, dataset: Dataset, own_redis: RedisServer
) -> None:
    with installation.worker():
        ids = [installation.submit(dataset, training={"epochs": 2}) for _ in range(4)]

        def over() -> bool:
            own_redis.client().client_kill_filter(_type="normal", skipme=True)
            return all(installation.job(job_id).status in ("succeeded", "failed") for job_id in ids)

        wait_for(over, seconds=120, what="the end of all jobs")
    assert [(installation.job(job_id).status, installation.job(job_id).attempt) for job_id in ids] == [
        ("succeeded", 1)
    ] * 4


def test_without_redis_a_worker_starts_runs_what_waits_and_drains(
    installation: Installation, dataset: Dataset, own_redis: RedisServer
) -> None:
    own_redis.kill()
    with installation.worker() as worker:
        first = installation.submit(dataset, training={"epochs": 1})
        assert installation.wait_for_status(first, "succeeded", "failed").status == "succeeded"
        second = installation.submit(dataset, training={"epochs": 10_000})
        installation.wait_for_batch(second, 3)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    job = installation.job(second)
    assert (job.status, job.failures) == ("queued", 0)
    assert installation.checkpoints(second)[0].step == job.progress["step"]
