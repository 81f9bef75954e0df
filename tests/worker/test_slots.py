"""One trainer for each GPU of a machine, whichever worker it belongs to, or so many on the cores."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from core.models import Dataset
from core.settings import Settings
from tests.installation import Installation, fork_servers_of
from tests.services import wait_for
from tests.worker.training.tiny import assignment, ragged_rows
from worker import trainer_process
from worker.identity import machine_prefix, worker_name
from worker.slots import Slots
from worker.trainer_process import TrainerProcess, end_left_behind

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ENDLESS = {"epochs": 10_000, "batch_size": 4}


@contextmanager
def lent(slots: Slots) -> Iterator[TrainerProcess | None]:
    """What a free slot lends."""
    with slots.one() as slot:
        assert slot, "there is no free slot"
        with slot.trainer(give_up=lambda: False) as trainer:
            yield trainer


def started(trainer: TrainerProcess | None, folder: Path) -> psutil.Process:
    """The process of a trainer that is at work for long."""
    assert trainer
    trainer.assign(assignment(folder, ragged_rows(200), training={"epochs": 1000, "batch_size": 4}))
    assert next(trainer.facts()).fact == "ready"
    return psutil.Process(trainer.pid)


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slots]:
    """The slots of a worker with one GPU; CUDA's variable is believed where there is no driver to ask."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"test-{os.getpid()}")
    made = Slots(Settings())
    yield made
    made.close()


def test_a_gpu_belongs_to_a_trainer_for_as_long_as_that_lives(slots: Slots, tmp_path: Path) -> None:
    others = Slots(Settings())
    with lent(slots) as trainer:
        assert slots.free == 0
        with slots.one() as none:
            assert none is None
        process = started(trainer, tmp_path / "0")
        assert process.environ()["CUDA_VISIBLE_DEVICES"] == f"test-{os.getpid()}"
        with lent(others) as second:
            assert second is None, "it is taken"
        # As if the worker were gone: the lock is not in its hands alone.
        assert trainer
        assert trainer._gpu_lock
        os.close(trainer._gpu_lock)
        trainer._gpu_lock = None
        with lent(others) as second:
            assert second is None, "its trainer still lives"
        trainer.kill()
        with lent(others) as second:
            assert second
    others.close()
    assert slots.free == 1
    with lent(slots) as trainer:
        process = started(trainer, tmp_path / "1")
    assert not process.is_running(), "it ends with the time that it was lent for"
    assert trainer
    assert trainer.kill() == -signal.SIGKILL


def test_trainers_of_a_slot_come_from_one_process_which_is_replaced_when_it_dies_or_hangs(
    slots: Slots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = []
    for number in range(2):
        with lent(slots) as trainer:
            process = started(trainer, tmp_path / str(number))
            parents.append(process.parent())
            assert process.pid == os.getpgid(process.pid), "in a group of its own"
    fork_server = parents[0]
    assert fork_server
    assert parents[1] == fork_server
    with lent(slots) as trainer:
        process = started(trainer, tmp_path / "2")
        fork_server.kill()
        assert trainer
        assert trainer.end(10) == -signal.SIGKILL
        process.wait(10)  # it dies with what forked it
    with lent(slots) as trainer:
        successor = started(trainer, tmp_path / "3").parent()
    assert successor
    assert successor != fork_server
    monkeypatch.setattr(trainer_process, "_ANSWER_SECONDS", 0.5)
    with lent(slots) as trainer:
        successor.suspend()
        assert trainer
        trainer.assign(assignment(tmp_path / "4", ragged_rows(8)))
        assert list(trainer.facts()) == []
        assert trainer.end(0) == -signal.SIGKILL
    with lent(slots) as trainer:
        assert started(trainer, tmp_path / "5").parent() != successor, "one that is frozen costs one start"


def test_no_trainer_is_lent_where_their_imports_fail_or_the_worker_drains(
    slots: Slots, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with slots.one() as slot:
        assert slot
        with slot.trainer(give_up=lambda: True) as trainer:
            assert trainer is None
    slots.close()
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so is not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = Slots(Settings())
    with lent(broken) as trainer:
        assert trainer is None
    broken.close()


@pytest.mark.parametrize(("gpus", "visible"), [("all", None), ("none", "")])
def test_trainers_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch, gpus: str, visible: str | None) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    slots = Slots(Settings(cpu_slots=2, gpus=gpus))
    assert len(slots) == 2
    with slots.one() as slot:
        assert slot
        fork_server = slot.warm_up()  # whose environment is that of all its trainers
        assert fork_server
        environment = psutil.Process(fork_server.process.pid).environ()
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
        fork_servers = [fork_server for worker in (one, two) for fork_server in fork_servers_of(worker)]
        at_work = [trainer for fork_server in fork_servers for trainer in fork_server.children()]
        assert {trainer.environ()["CUDA_VISIBLE_DEVICES"] for trainer in at_work} == gpus
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
    def left_by(worker: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"EPOCHD_TRAINER_OF": worker}
        return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], env=environment)

    left = left_by(f"{machine_prefix()}4194305:0.00")
    others = [left_by(worker_name()), left_by("elsewhere:4026531836:4194305:0.00"), left_by("")]
    try:
        with installation.worker():
            wait_for(lambda: left.poll() == -signal.SIGKILL, what="the end of the one left behind")
            assert [process.poll() for process in others] == [None] * 3
    finally:
        for process in [left, *others]:
            process.kill()
            process.wait()


@on_sqlite
def test_the_folder_of_a_killed_workers_trainer_goes_when_the_next_starts_and_no_other(
    installation: Installation, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tmp_path / "folders"
    folders.mkdir()
    job_id = installation.submit(dataset, training=ENDLESS)
    with installation.worker(TMPDIR=str(folders)) as worker:
        installation.wait_for_batch(job_id, 1)
        worker.kill()
    (left,) = folders.glob("epochd-trainer-*")
    os.utime(left, (0, 0))
    with installation.worker(TMPDIR=str(folders)):
        wait_for(lambda: not left.exists(), what="the end of what was left behind")
        wait_for(lambda: [e.type for e in installation.log(job_id)].count("started") == 2, what="the second start")
        (in_use,) = wait_for(lambda: list(folders.glob("epochd-trainer-*")), what="its trainer's folder")
        os.utime(in_use, (0, 0))
        monkeypatch.setattr(tempfile, "tempdir", str(folders))
        end_left_behind()
        assert in_use.exists()
