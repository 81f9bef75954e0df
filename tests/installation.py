"""An epochd without its HTTP side: a database, a store, and real worker processes that train real, tiny models."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlmodel import col, select

from core import checkpoints, datasets, events, jobs, keys, metrics
from core.database import connect
from core.dataset_files import DataFile
from core.dataset_look import inspect
from core.dispatch import Bell
from core.events import START, Cursor, Event
from core.job_spec import JobSpec
from core.live_log import LiveLog
from core.models import Checkpoint, Dataset, Job
from core.settings import Settings
from core.store import open_store
from core.unit_of_work import UnitOfWork
from tests.services import wait_for

# 24 rows of ragged length: 3 epochs of it take a tiny model about a second.
ROWS = "\n".join(json.dumps({"text": "the quick brown fox jumps over the lazy dog " * (1 + n % 5)}) for n in range(24))

TINY = {
    "tokenizer": "bytes",
    "model": {"config": {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16}},
    "sequence": {"max_length": 64},
    "training": {"epochs": 3, "batch_size": 4, "gradient_accumulation_steps": 2},
}

# Changes that make a run long enough to be met in its middle; dropout and a trailing window included.
LONG: dict[str, Any] = {
    "training": {"epochs": 40, "batch_size": 4, "gradient_accumulation_steps": 4},
    "checkpoints": {"every_epochs": 5},
}


class Installation:
    """One installation of a test's own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.work = UnitOfWork(connect(settings.database), LiveLog(settings.redis), Bell(settings.redis))
        self.store = open_store(settings.store)
        keys.ensure_first_key(self.work, settings.key_file)
        with self.work.reading() as session:
            caller = keys.authenticate(session, settings.key_file.read_text().strip())
        assert caller
        self.owner = caller.owner_id

    def environment(self) -> dict[str, str]:
        """Return what a process of this installation is started with."""
        return {
            **os.environ,
            "EPOCHD_DATA_DIR": str(self.settings.data_dir),
            "EPOCHD_DATABASE_URL": self.settings.database,
            "EPOCHD_REDIS_URL": self.settings.redis,
            "EPOCHD_STORE_URL": self.settings.store,
            # A tiny model gains nothing from a second thread, and loses much to whatever else the machine does.
            "OMP_NUM_THREADS": "1",
        }

    @contextmanager
    def worker(self, **environment: str) -> Iterator[psutil.Popen]:
        """A real worker process; killed at the end with all that it started, if it has not ended by itself."""
        command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"]
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with (self.settings.data_dir / "worker.log").open("a") as log:
            process = psutil.Popen(
                [*command, *options], env=self.environment() | environment, stdout=log, stderr=log, cwd="/"
            )
        try:
            yield process
        finally:
            if process.is_running():
                process.send_signal(signal.SIGKILL)
            process.wait()

    def add_dataset(self, text: str = ROWS) -> Dataset:
        """Upload a JSONL dataset."""
        with self.store.incoming() as path:
            path.write_text(text)
            file = DataFile(path=path, format="jsonl")
            report = inspect(file)
            with self.work.begin() as session:
                return datasets.add(
                    session,
                    self.owner,
                    filename="rows.jsonl",
                    size=path.stat().st_size,
                    sha256=hashlib.sha256(text.encode()).hexdigest(),
                    file=file,
                    report=report,
                    store=self.store,
                )

    def submit(self, dataset: Dataset, **changes: Any) -> str:
        """Submit a tiny job, changed as said, and return its id."""
        spec = JobSpec.model_validate({**TINY, "dataset": dataset.id, **changes})
        with self.work.begin() as session:
            job, _ = jobs.submit(session, self.owner, spec, self.settings, request_sha256="")
        return job.id

    def cancel(self, job_id: str) -> None:
        """Ask for the job's end."""
        with self.work.begin() as session:
            jobs.request_cancel(session, self.owner, job_id)

    def job(self, job_id: str) -> Job:
        """Return the job's row."""
        with self.work.reading() as session:
            return session.get_one(Job, job_id)

    def wait_for_status(self, job_id: str, *statuses: str, seconds: float = 120) -> Job:
        """Return the job once it has one of the statuses."""
        wait_for(lambda: self._status(job_id) in statuses, seconds=seconds, what=f"{job_id} {statuses}")
        return self.job(job_id)

    def log(self, job_id: str, after: Cursor = START) -> list[Event]:
        """Return the job's log of record."""
        with self.work.reading() as session:
            return events.read(session, job_id, after, 1_000_000)

    def wait_for_batch(self, job_id: str, batch: int) -> None:
        """Wait until the log of record holds this batch."""
        wait_for(lambda: self._last_batch(job_id) >= batch, seconds=120, what=f"batch {batch} of {job_id}")

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return the listed checkpoints, newest first."""
        with self.work.reading() as session:
            return checkpoints.all_of(session, job_id)

    def folder(self, checkpoint: Checkpoint) -> Path:
        """Return where a checkpoint lies."""
        return self.store.fetch(checkpoints.store_key(checkpoint))

    def weights(self, job_id: str) -> str:
        """Return the hash of the newest checkpoint's weights."""
        newest = self.checkpoints(job_id)[0]
        return next(file["sha256"] for file in newest.files if file["name"] == "model.safetensors")

    # What is looked at many times a second, beside the processes that are tested, costs as little as can be.

    def _status(self, job_id: str) -> str:
        with self.work.reading() as session:
            return session.exec(select(Job.status).where(col(Job.id) == job_id)).one()

    def _last_batch(self, job_id: str) -> int:
        with self.work.reading() as session:
            return metrics.last_batch(session, job_id)


def trainers() -> list[psutil.Process]:
    """Return every trainer process on this machine, and every fork server."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if "worker.training" in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def fork_servers_of(worker: psutil.Popen) -> list[psutil.Process]:
    """Return the processes that fork a worker's trainers."""
    return [child for child in worker.children() if "worker.training" in child.cmdline()]


def trainer_of(worker: psutil.Popen) -> psutil.Process:
    """Return the trainer that a worker is running a job with."""
    (trainer,) = [trainer for fork_server in fork_servers_of(worker) for trainer in fork_server.children()]
    return trainer
