"""A disk that fills up: said with the numbers, nothing torn, nothing lost, and gone on from once there is room."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import jobs
from core.models import Job
from core.settings import Settings
from tests.faults.account import verified
from tests.faults.small_disk import MB, fill, small_disk
from tests.installation import LONG, Installation, trainer_of
from tests.services import RedisServer, wait_for
from tests.worker.training.tiny import assignment, ragged_rows
from worker.training import checkpoints
from worker.training.errors import as_failed
from worker.training.loop import train


@pytest.fixture(name="small_disk")
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    with small_disk(tmp_path / "disk", megabytes=40) as made:
        yield made


@pytest.fixture
def cramped(tmp_path: Path, migrated_sqlite: Path, own_redis: RedisServer, small_disk: Path) -> Iterator[Installation]:
    """An epochd whose store lies on the small disk."""
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    store = (small_disk / "store").as_uri()
    made = Installation(Settings(data_dir=tmp_path, redis_url=own_redis.url, store_url=store))
    yield made
    made.work.close()


def retried(installation: Installation, job_id: str) -> Job:
    with installation.work.begin() as session:
        jobs.retry(session, installation.owner, job_id, installation.settings)
    return installation.wait_for_status(job_id, "succeeded", "failed")


def test_a_job_that_could_not_save_a_single_checkpoint_does_not_begin(cramped: Installation, small_disk: Path) -> None:
    dataset = cramped.add_dataset()
    ballast = fill(small_disk, leaving=5 * MB)
    with cramped.worker():
        job_id = cramped.submit(dataset)
        job = cramped.wait_for_status(job_id, "failed", "succeeded")
        assert (job.status, job.error["code"]) == ("failed", "disk_full")
        assert job.error["message"] == "A checkpoint takes up to 17 MB, and 5 MB are free where it is written."
        assert "retry" in job.error["hint"]
        assert not [event for event in cramped.log(job_id) if event.type == "batch"]
        ballast.unlink()
        assert retried(cramped, job_id).status == "succeeded"


def test_a_disk_that_fills_up_on_the_way_costs_nothing_but_the_way_from_the_last_checkpoint(
    cramped: Installation,
    small_disk: Path,
    undisturbed_weights: str,
) -> None:
    dataset = cramped.add_dataset()
    with cramped.worker() as worker:
        job_id = cramped.submit(dataset, **LONG)
        wait_for(lambda: cramped.checkpoints(job_id), seconds=60, what="a checkpoint")
        trainer = trainer_of(worker)
        trainer.suspend()
        ballast = fill(small_disk, leaving=2 * MB)
        trainer.resume()
        job = cramped.wait_for_status(job_id, "failed", "succeeded")
        assert (job.status, job.error["code"]) == ("failed", "disk_full")
        assert verified(cramped, job_id)
        incoming = small_disk / "store" / "incoming"
        wait_for(lambda: not list(incoming.iterdir()), what="the end of what was under way")
        ballast.unlink()
        assert retried(cramped, job_id).status == "succeeded"
    assert cramped.weights(job_id) == undisturbed_weights


@pytest.mark.parametrize("room", [0, 4096, 20_000, 60_000])
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_leaves_no_part_of_it(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(checkpoints, "require_room", lambda *_: None)  # others write to the disk as well
    job = assignment(small_disk / "run", ragged_rows(8), checkpoints={"every_steps": 1}, training={"epochs": 50})
    facts = train(job, lambda: False)
    first = next(fact for fact in facts if fact.fact == "checkpoint")
    fill(small_disk, leaving=room)
    with pytest.raises(Exception, match=r"No space|os error 28") as raised:
        list(facts)
    failed = as_failed(raised.value)
    assert (failed.code, "retry" in failed.hint) == ("disk_full", True)
    left = list(job.output_dir.iterdir())
    assert first.path in left
    assert all(folder.name.startswith("step-") for folder in left)
    for folder in left:
        assert checkpoints.read_state(folder).step == int(folder.name[-8:])
