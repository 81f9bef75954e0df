"""An installation to measure: a database of either kind, a Redis, and one API process as a deployment starts it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from core.database import connect, migrate
from core.dispatch import Bell
from core.live_log import LiveLog
from core.unit_of_work import UnitOfWork
from tests.services import PostgresServer, RedisServer, find_postgres, free_port, redis_server

DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Installation:
    """One API process, a client with its first key, and the way around it into its database and Redis."""

    client: httpx.Client
    key: str
    work: UnitOfWork
    process: psutil.Process
    redis: RedisServer

    def dataset(self) -> str:
        """Upload a small dataset and return its id."""
        text = "\n".join(f'{{"text": "row {n}"}}' for n in range(100))
        answer = self.client.post("/datasets?filename=rows.jsonl", content=text.encode()).raise_for_status()
        return str(answer.json()["id"])

    def job(self, dataset: str, **spec: object) -> str:
        """Submit a job and return its id."""
        return str(self.client.post("/jobs", json={"dataset": dataset, **spec}).raise_for_status().json()["id"])


@contextmanager
def installation(database: str, folder: Path) -> Iterator[Installation]:
    """Serve a new installation on a `sqlite` or `postgresql` database; what it keeps lies in `folder`."""
    with redis_server() as redis, _database(database, folder) as url:
        engine = connect(url)
        migrate(engine)
        port = free_port()
        environment = {"EPOCHD_DATA_DIR": str(folder), "EPOCHD_DATABASE_URL": url, "EPOCHD_REDIS_URL": redis.url}
        # All that is measured is asked for with one key.
        environment |= {"EPOCHD_PORT": str(port), "EPOCHD_MAX_WATCHERS_PER_KEY": "1000000"}
        with _api(port, environment, folder / "api.log") as process:
            base, headers = (
                f"http://127.0.0.1:{port}",
                {"Authorization": f"Bearer {(folder / 'key').read_text().strip()}"},
            )
            work = UnitOfWork(engine, LiveLog(redis.url), Bell(redis.url))
            with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=120) as client:
                yield Installation(client, headers["Authorization"], work, process, redis)
            work.close()


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'epochd.sqlite3'}"
        return
    binaries = find_postgres()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed here: install it, or measure --database sqlite alone.")
    server = PostgresServer(binaries)
    try:
        yield server.new_database("epochd")
    finally:
        server.close()


@contextmanager
def _api(port: int, environment: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "app", "--quiet"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise SystemExit(f"the API ended with status {process.returncode}: {log.read_text()[-1000:]}")
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
    except httpx.TransportError:
        return False


class Growth:
    """By how much a process's memory has grown, at most, while a block runs."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._ended, self.most = process, threading.Event(), 0
        self._before = process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Growth":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, self._process.memory_info().rss - self._before)


def settle(installed: Installation) -> None:
    """Let the database do what it does by itself within a minute of so many new rows: look at what it has."""
    with installed.work.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE" if connection.dialect.name == "postgresql" else "PRAGMA optimize")


def percentile(values: list[float], percent: float) -> float:
    """Return the value that so many percent of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]
