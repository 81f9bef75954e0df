"""A real worker process and its trainers: a job's run, and what happens when either is stopped or killed."""

import json
import signal

import psutil
import pytest

from core import trainer_output
from core.live_log import stream_key
from core.models import Dataset
from tests.installation import LONG, Installation, trainer_of
from tests.services import RedisServer, wait_for
from tests.worker.conftest import AtWork
from worker.output import KEPT_CHARACTERS

# The moves themselves are tested on both databases in tests/core; here the processes are what is tried.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_job_succeeds_and_the_live_tail_says_what_the_log_of_record_says(
    installation: Installation, dataset: Dataset, redis: RedisServer
) -> None:
    with installation.worker(MKL_VERBOSE="1"):  # a trainer that writes a line for every product of matrices
        job_id = installation.submit(dataset, samples={"prompts": ["the quick"]})
        job = installation.wait_for_status(job_id, "succeeded", "failed", "cancelled")
    assert job.status == "succeeded", job.error
    is_kept_and_passed_on(installation, job_id)

    log = installation.log(job_id)
    live = [fields["e"] for _, fields in redis.client().xrange(stream_key(job_id))]
    assert [event.to_json() for event in log] == live

    seqs = [event.cursor.seq for event in log if event.cursor.fence == 1]
    assert seqs == list(range(1, len(seqs) + 1))
    batches = [event.data for event in log if event.type == "batch"]
    assert [batch["batch"] for batch in batches] == list(range(1, 3 * job.plan["batches_per_epoch"] + 1))
    assert [event.data["epoch"] for event in log if event.type == "checkpoint"] == [1, 2, 3]
    assert [event.data["epoch"] for event in log if event.type == "epoch"] == [1, 2, 3]
    assert sum(event.type == "sample" for event in log) == 3
    assert log[-1].type == "succeeded"
    assert job.progress["step"] == job.plan["steps"] == batches[-1]["step"]
    assert job.progress["fraction"] == 1
    assert job.latest["loss"] == batches[-1]["loss"]
    assert json.loads(live[-1])["data"]["step"] == job.plan["steps"]


def is_kept_and_passed_on(installation: Installation, job_id: str) -> None:
    """Check on the trainer's output."""
    with installation.work.reading() as session:
        [output] = trainer_output.of_job(session, job_id)
    assert (output.attempt, "MKL_VERBOSE" in output.text) == (1, True)
    assert output.lines > output.text.count("\n") + 1, "the end of it, and how much it was"
    assert len(output.text) <= KEPT_CHARACTERS
    assert output.text.splitlines()[-1] in (installation.settings.data_dir / "worker.log").read_text(), "passed on too"


def test_a_run_that_is_stopped_early_succeeds_and_says_so(at_work: AtWork) -> None:
    installation = at_work.installation
    training = {"epochs": 400, "learning_rate": 0.1, "early_stopping_patience": 2}
    job_id = installation.submit(at_work.dataset, validation={"fraction": 0.25}, training=training)
    job = installation.wait_for_status(job_id, "succeeded", "failed", "cancelled")
    assert job.status == "succeeded", job.error
    last = installation.log(job_id)[-1]
    assert last.data["reason"] == "stopped early: the validation loss got no better"
    assert last.data["step"] == installation.checkpoints(job_id)[0].step == job.progress["step"] < job.plan["steps"]
    assert (job.progress["fraction"], job.progress["eta_seconds"]) == (1.0, 0.0)


def test_a_killed_trainer_costs_one_failure_and_not_a_bit_of_the_weights(
    at_work: AtWork, undisturbed_weights: str
) -> None:
    installation = at_work.installation
    job_id = installation.submit(at_work.dataset, **LONG)
    installation.wait_for_batch(job_id, 40)
    trainer_of(at_work.worker).kill()
    job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    requeued = [event for event in installation.log(job_id) if event.type == "requeued"]
    assert [event.data["failures"] for event in requeued] == [1]
    assert installation.weights(job_id) == undisturbed_weights


@on_sqlite
def test_a_drain_saves_requeues_and_costs_no_failure(
    installation: Installation, dataset: Dataset, undisturbed_weights: str
) -> None:
    with installation.worker() as worker:
        job_id = installation.submit(dataset, **LONG)
        installation.wait_for_batch(job_id, 25)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    job = installation.job(job_id)
    assert (job.status, job.failures) == ("queued", 0)
    log = installation.log(job_id)
    last_step = [event.data["step"] for event in log if event.type == "batch"][-1]
    assert installation.checkpoints(job_id)[0].step == last_step  # nothing that was done is lost
    with installation.worker():
        job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    started = [event.data for event in installation.log(job_id) if event.type == "started"]
    assert started == [{"attempt": 1, "from_step": 0}, {"attempt": 2, "from_step": last_step}]
    assert installation.weights(job_id) == undisturbed_weights


def test_a_running_job_is_cancelled_with_a_checkpoint(at_work: AtWork) -> None:
    installation = at_work.installation
    job_id = installation.submit(at_work.dataset, training={"epochs": 10_000, "batch_size": 4})
    installation.wait_for_batch(job_id, 3)
    installation.cancel(job_id)
    job = installation.wait_for_status(job_id, "cancelled", "failed", "succeeded")
    assert job.status == "cancelled"
    log = installation.log(job_id)
    assert [event.type for event in log[-2:]] == ["checkpoint", "cancelled"]
    assert installation.checkpoints(job_id)[0].step == job.progress["step"]


def test_a_job_that_cannot_be_trained_fails_with_a_reason_and_the_next_one_runs(at_work: AtWork) -> None:
    installation = at_work.installation
    short = installation.add_dataset("\n".join(json.dumps({"input_ids": [1, 2, 3]}) for _ in range(4)))
    bad = installation.submit(short, tokenizer=None, sequence={"max_length": 64, "min_length": 8})
    good = installation.submit(at_work.dataset, training={"epochs": 1})
    assert installation.wait_for_status(good, "succeeded", "failed").status == "succeeded"
    job = installation.job(bad)
    assert job.status == "failed"
    assert job.error["code"] == "data"
    assert "min_length" in job.error["message"] + job.error["hint"]
    assert job.error["hint"]


def test_a_lost_dataset_file_fails_the_job_with_a_reason(at_work: AtWork) -> None:
    installation, lost = at_work.installation, at_work.installation.add_dataset('{"text": "soon lost"}')
    installation.store.delete(f"datasets/{lost.id}")
    job = installation.wait_for_status(installation.submit(lost), "failed", "succeeded")
    assert (job.status, job.error["code"]) == ("failed", "data")
    assert "missing from the store" in job.error["message"]


def test_three_losses_without_a_new_checkpoint_are_a_failure(at_work: AtWork) -> None:
    installation = at_work.installation
    job_id = installation.submit(
        at_work.dataset, training={"epochs": 10_000, "batch_size": 4}, checkpoints={"every_epochs": 9999}
    )
    for attempt in (1, 2, 3):
        wait_for(lambda n=attempt: _has_stepped(installation, job_id, n), seconds=60, what=f"attempt {attempt}")
        trainer_of(at_work.worker).kill()
    job = installation.wait_for_status(job_id, "failed", "succeeded")
    assert (job.failures, job.error["code"]) == (3, "worker_lost")
    assert "SIGKILL" in job.error["message"]


@on_sqlite
def test_a_killed_worker_leaves_no_trainer_and_its_successor_goes_on_from_the_newest_checkpoint_that_is_whole(
    installation: Installation, dataset: Dataset, undisturbed_weights: str
) -> None:
    with installation.worker() as worker:
        job_id = installation.submit(dataset, **LONG)
        wait_for(lambda: len(installation.checkpoints(job_id)) >= 2, seconds=60, what="two checkpoints")
        children = worker.children(recursive=True)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        psutil.wait_procs(children, timeout=30)
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert installation.job(job_id).status == "running"  # nobody has noticed yet
    newest, before = installation.checkpoints(job_id)[:2]
    weights = installation.folder(newest) / "model" / "model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    with installation.worker():
        job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    log = installation.log(job_id)
    warnings = [event.data for event in log if event.type == "warning"]
    assert [warning["code"] for warning in warnings] == ["plan", "checkpoint_damaged"]  # the plan's only once
    assert f"goes on from that of step {before.step}." in warnings[1]["message"]
    later = log[next(place for place, event in enumerate(log) if event.data.get("attempt") == 2) :]
    assert next(event.data["step"] for event in later if event.type == "batch") == before.step + 1
    assert installation.weights(job_id) == undisturbed_weights


def test_a_job_goes_on_from_an_earlier_jobs_checkpoint(at_work: AtWork) -> None:
    installation = at_work.installation
    first = installation.submit(at_work.dataset)
    installation.wait_for_status(first, "succeeded", "failed")
    onward = {"tokenizer": None, "model": {"checkpoint": {"job": first, "epoch": "latest"}}, "training": {"epochs": 1}}
    second = installation.submit(at_work.dataset, **onward)
    job = installation.wait_for_status(second, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    assert job.spec["model"]["checkpoint"]["epoch"] == 3
    losses = {
        job_id: [e.data["loss"] for e in installation.log(job_id) if e.type == "epoch"] for job_id in (first, second)
    }
    assert losses[second][0] < losses[first][0]


def test_jobs_wait_in_order_of_priority_then_age(at_work: AtWork) -> None:
    installation, dataset = at_work.installation, at_work.dataset
    first = installation.submit(dataset, training={"epochs": 10_000, "batch_size": 4}, priority=9)
    installation.wait_for_batch(first, 1)
    ids = [installation.submit(dataset, priority=priority, training={"epochs": 1}) for priority in (0, 5, 0)]
    installation.cancel(first)
    for job_id in ids:
        assert installation.wait_for_status(job_id, "succeeded", "failed").status == "succeeded"
    started = [installation.job(job_id).started_at for job_id in ids]
    assert started[1] < started[0] < started[2]


def _has_stepped(installation: Installation, job_id: str, attempt: int) -> bool:
    current = [event for event in installation.log(job_id) if event.type in ("started", "batch")]
    starts = [place for place, event in enumerate(current) if event.type == "started"]
    return len(starts) == attempt and len(current) > starts[-1] + 1
