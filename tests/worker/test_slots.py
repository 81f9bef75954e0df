"""One trainer for each GPU of a machine, whichever worker it belongs to, or so many on the cores."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from core.models import Dataset
from core.settings import Settings
from tests.installation import Installation
from tests.services import wait_for
from worker.identity import machine_prefix, worker_name
from worker.slots import Slots
from worker.trainer_process import TrainerProcess

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ENDLESS = {"epochs": 10_000, "batch_size": 4}


@contextmanager
def lent(slots: Slots) -> Iterator[TrainerProcess | None]:
    """What a free slot lends."""
    with slots.one() as slot:
        assert slot, "there is no free slot"
        with slot.trainer() as trainer:
            yield trainer


def environment_of(trainer: TrainerProcess) -> dict[str, str]:
    """What it was started with; the kernel shows nothing yet in the moment of its start."""
    process = psutil.Process(trainer._process.pid)
    return wait_for(process.environ, what="the trainer's environment")


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slots]:
    """The slots of a worker with one GPU; CUDA's variable is believed where there is no driver to ask."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"test-{os.getpid()}")
    made = Slots(Settings())
    yield made
    made.close()


def test_a_gpu_belongs_to_a_trainer_for_as_long_as_that_lives(slots: Slots) -> None:
    others = Slots(Settings())
    with lent(slots) as trainer:
        assert trainer
        with lent(others) as second:
            assert second is None, "it is taken"
        # As if the worker were gone: the lock is not in its hands alone.
        assert trainer._gpu_lock
        os.close(trainer._gpu_lock)
        trainer._gpu_lock = None
        with lent(others) as second:
            assert second is None
        trainer.kill()
        with lent(others) as second:
            assert second
            assert environment_of(second)["CUDA_VISIBLE_DEVICES"] == f"test-{os.getpid()}"
    others.close()


def test_a_trainer_without_work_is_the_next_one_s_and_leaves_the_gpu(slots: Slots) -> None:
    with lent(slots) as first:
        assert slots.free == 0
        with slots.one() as none:
            assert none is None
    assert slots.free == 1
    others = Slots(Settings())
    with lent(others) as elsewhere:
        assert elsewhere
    others.close()
    with lent(slots) as again:
        assert again is first
        assert again
        again.kill()
    with lent(slots) as next_one:
        assert next_one not in (None, first)


@pytest.mark.parametrize(("gpus", "visible"), [("all", None), ("none", "")])
def test_trainers_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch, gpus: str, visible: str | None) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    slots = Slots(Settings(cpu_slots=2, gpus=gpus))
    assert len(slots) == 2
    with lent(slots) as trainer:
        assert trainer
        environment = environment_of(trainer)
    slots.close()
    assert environment["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 1) // 2))
    assert environment.get("CUDA_VISIBLE_DEVICES") == visible


@on_sqlite
def test_each_gpu_trains_one_job_whichever_worker_sees_it(installation: Installation, dataset: Dataset) -> None:
    gpus = {f"a-{os.getpid()}", f"b-{os.getpid()}"}
    machine = {"CUDA_VISIBLE_DEVICES": ",".join(sorted(gpus))}
    with installation.worker(**machine) as one, installation.worker(**machine) as two:
        ids = [installation.submit(dataset, training=ENDLESS) for _ in range(3)]
        for job_id in ids[:2]:
            installation.wait_for_batch(job_id, 1)
        busy = [child for worker in (one, two) for child in worker.children() if child.cpu_percent(0.5) > 20]
        assert {child.environ()["CUDA_VISIBLE_DEVICES"] for child in busy} == gpus
        assert installation.job(ids[2]).status == "queued"
        installation.cancel(ids[0])
        installation.wait_for_batch(ids[2], 1)
        for job_id in ids[1:]:
            assert installation.job(job_id).status == "running"
            installation.cancel(job_id)
        for job_id in ids:
            installation.wait_for_status(job_id, "cancelled")
        assert "cannot use" in str(installation.job(ids[0]).plan["warnings"]), "torch sees no such GPU"


@on_sqlite
def test_a_worker_that_starts_ends_the_trainers_that_another_left_behind(installation: Installation) -> None:
    def trainer_of(worker: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"EPOCHD_TRAINER_OF": worker}
        return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], env=environment)

    left = trainer_of(f"{machine_prefix()}4194305:0.00")
    others = [trainer_of(worker_name()), trainer_of("elsewhere:4026531836:4194305:0.00"), trainer_of("")]
    try:
        with installation.worker():
            wait_for(lambda: left.poll() == -signal.SIGKILL, what="the end of the one left behind")
            assert [process.poll() for process in others] == [None] * 3
    finally:
        for process in [left, *others]:
            process.kill()
            process.wait()
