"""What an installation stands on, looked at piece by piece: how it is, and what to do where it is not well."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import redis
import sqlalchemy as sa
from sqlmodel import col, select

from cli.operator_database import opened
from cli.screen import size
from core import checkpoints, datasets, gpus
from core.database import database_now
from core.errors import Corrupt, Unusable
from core.job_states import JobStatus
from core.models import Checkpoint, Dataset, Job
from core.settings import Settings
from core.store import Store, open_store
from core.unit_of_work import UnitOfWork

_LITTLE_SPACE = 10 * 2**30
# People read times of one machine beside those of another; leases are safe from this.
_CLOCK_SECONDS = 5.0
# Workers look for leases that have run out every few seconds.
_NOTICED_SECONDS = 15.0
_TORCH = """\
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "gpus": names}))
"""


class Health(StrEnum):
    """How a piece is."""

    WELL = "ok"
    DOUBTFUL = "warning"
    ILL = "failed"


@dataclass(frozen=True)
class Finding:
    """One piece: how it is, in what words, and what to do."""

    piece: str
    health: Health
    words: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, in the order in which a fault of one explains those behind it."""
    if not settings.data_dir.is_dir():
        advice = "`epochd up` makes it; or name another with EPOCHD_DATA_DIR."
        yield Finding("data", Health.ILL, f"there is nothing at {settings.data_dir} yet", advice)
        return
    pieces: dict[str, Callable[[Settings], Finding]] = {
        "database": _database,
        "clock": _clock,
        "queue": _queue,
        "redis": _redis,
        "store": _store,
        "files": _files,
        "disk": _disk,
        "training": _training,
    }
    for piece, look in pieces.items():
        try:
            yield look(settings)
        except Unusable as error:
            yield Finding(piece, Health.ILL, error.detail)
        except OSError as error:
            yield Finding(piece, Health.ILL, f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))


def _database(settings: Settings) -> Finding:
    with opened(settings) as work:
        dialect = work.engine.dialect
        version = ".".join(map(str, getattr(dialect, "server_version_info", None) or ()))
    return Finding("database", Health.WELL, f"{dialect.name} {version}".strip() + ", tables of this version")


def _clock(settings: Settings) -> Finding:
    with opened(settings) as work, work.reading() as session:
        theirs = session.execute(sa.select(database_now(0))).scalar_one()
        apart = abs((datetime.now(UTC) - theirs).total_seconds())
    words = f"{apart:.1f} s from the database's"
    if apart < _CLOCK_SECONDS:
        return Finding("clock", Health.WELL, words)
    advice = "Set both machines' clocks by NTP: leases are safe, but times in logs and keys' expiry are not comparable."
    return Finding("clock", Health.DOUBTFUL, words, advice)


def _queue(settings: Settings) -> Finding:
    with opened(settings) as work, work.reading() as session:
        counted = session.exec(select(Job.status, sa.func.count()).group_by(col(Job.status)))
        counts = dict(counted.all())
        overdue = col(Job.lease_expires_at) < database_now(-_NOTICED_SECONDS)
        late = session.exec(select(sa.func.count()).where(Job.status == JobStatus.RUNNING, overdue)).one()
    words = f"{counts.get('queued', 0)} queued, {counts.get('running', 0)} running, {counts.get('paused', 0)} paused"
    if not late:
        return Finding("queue", Health.WELL, words)
    words += f"; of {late} the worker is gone and no other has noticed"
    return Finding("queue", Health.ILL, words, "Start a worker: each looks after such jobs a lease after its start.")


def _redis(settings: Settings) -> Finding:
    advice = "`epochd up` starts one of its own; else check EPOCHD_REDIS_URL. Jobs start without it, only later."
    try:
        client = redis.Redis.from_url(settings.redis, socket_timeout=2.0, socket_connect_timeout=2.0, retry=None)
        with client:
            version = client.info("server")["redis_version"]
    except (redis.RedisError, ValueError) as error:
        return Finding("redis", Health.ILL, f"does not answer: {error}", advice)
    return Finding("redis", Health.WELL, f"version {version}")


def _store(settings: Settings) -> Finding:
    store = open_store(settings.store)
    try:
        with store.incoming() as path:
            path.write_bytes(b"epochd")
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    except OSError as error:
        advice = "The folder of EPOCHD_STORE_URL must be writable for the API and for every worker."
        return Finding("store", Health.ILL, f"cannot be written: {error.strerror}", advice)
    return Finding("store", Health.WELL, "can be written")


def _files(settings: Settings) -> Finding:
    store = open_store(settings.store)
    with opened(settings) as work:
        listed = _listed(work)
        lost = {key for key, length in listed.items() if not _is_there(store, key, length)}
        # What retention has just removed is not listed any more.
        lost &= _listed(work).keys() if lost else set()
    if not lost:
        return Finding("files", Health.WELL, f"{len(listed)} are listed, and in the store")
    words = f"{len(lost)} of {len(listed)} that are listed are missing from the store or cut off: {min(lost)}, …"
    advice = "Only a backup brings them back. A job that goes on uses the newest checkpoint that is whole."
    return Finding("files", Health.DOUBTFUL, words, advice)


def _listed(work: UnitOfWork) -> dict[str, int]:
    """Return the store's key of every file that the database lists, with its length."""
    with work.reading() as session:
        here = select(Dataset).where(col(Dataset.deleted_at).is_(None))
        files = {datasets.store_key(row.id): datasets.kept_bytes(row) for row in session.exec(here)}
        alive = select(Checkpoint).join(Job, col(Job.id) == col(Checkpoint.job_id)).where(col(Job.deleted_at).is_(None))
        for row in session.exec(alive):
            for part, entries in (("model", row.files), ("state", row.state_files)):
                for entry in entries:
                    files[f"{checkpoints.store_key(row)}/{part}/{entry['name']}"] = entry["bytes"]
    return files


def _is_there(store: Store, key: str, length: int) -> bool:
    try:
        return store.fetch(key).stat().st_size == length
    except (Corrupt, FileNotFoundError):
        return False


def _disk(settings: Settings) -> Finding:
    free = {"store": open_store(settings.store).free_bytes(), "data": shutil.disk_usage(settings.data_dir).free}
    words = ", ".join(f"{size(count)} free for the {name}" for name, count in free.items())
    if min(free.values()) >= _LITTLE_SPACE:
        return Finding("disk", Health.WELL, words)
    advice = "Delete jobs that are no longer needed (`epochd delete`), or lower EPOCHD_CACHE_MAX_BYTES."
    return Finding("disk", Health.DOUBTFUL, words, advice)


def _training(settings: Settings) -> Finding:
    wanted = gpus.named(settings.gpus)
    # In a process of its own, since this one has no torch and needs none.
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return Finding("training", Health.DOUBTFUL, f"not from here: {last[0]}", "A worker needs `epochd[worker]`.")
    found = json.loads(done.stdout)
    if wanted and not found["gpus"]:
        words = f"torch {found['version']} cannot use {', '.join(wanted)}, so jobs train on the CPU"
        return Finding("training", Health.ILL, words, "Install a build of torch that fits the GPU's driver.")
    devices = ", ".join(found["gpus"]) or "CPU alone"
    return Finding(
        "training", Health.WELL, f"torch {found['version']} on {devices}, loaded in {time.monotonic() - began:.1f} s"
    )
