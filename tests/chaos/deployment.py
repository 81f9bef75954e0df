"""The real processes of a deployment on one machine, each of them there to be killed, and started again as often.

APIs and workers reach PostgreSQL over links of their own, which can be cut; they share a Redis, and a store on a small
disk. Each carries a mark in its environment that its children inherit, so that whatever outlives them is found.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from uuid import uuid4

import httpx
import psutil

from core.database import connect, migrate
from core.settings import Settings
from tests.faults.proxy import Proxy
from tests.faults.small_disk import small_disk
from tests.installation import Installation
from tests.services import PostgresServer, RedisServer, free_port, postgres_on_a_port, redis_server, wait_for

# Not EPOCHD_…: a trainer is given nothing of that name.
_MARK = "CHAOS_RUN"
_APIS, _WORKERS = 2, 3
# Short, so that a lease runs out, a trainer is taken for hung and a stop goes unanswered within a run of minutes. A
# trainer's imports, which are silent, take some 10 s where three of them share two cores.
_TIMES = {"EPOCHD_LEASE_SECONDS": "6", "EPOCHD_STALL_SECONDS": "20", "EPOCHD_STOP_GRACE_SECONDS": "5"}
_RESTART_AFTER_SECONDS = 1.0
_DRAINED_WITHIN_SECONDS = 60.0
_STOPPED_WITHIN_SECONDS = 60.0
_DISK_MEGABYTES = 256
_API = [sys.executable, "-m", "uvicorn", "--factory", "app.main:app", "--timeout-graceful-shutdown", "3"]
_WORKER = [
    *(sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
]


class Member:
    """An API or a worker that is started again a second after its end, however it ended."""

    def __init__(self, title: str, command: list[str], *, environment: dict[str, str], link: Proxy, log: Path) -> None:
        self.title, self.link = title, link
        self._command, self._environment, self._log = command, environment, log
        self._ended_at: float | None = None
        self._drained_at: float | None = None
        self.overdue = False
        self.start()

    def start(self) -> None:
        """Start it."""
        with self._log.open("a") as log:
            self.process = psutil.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a Ctrl-C is the run's to answer
            )
        self._ended_at = self._drained_at = None

    @property
    def alive(self) -> bool:
        """Whether its process runs, or is frozen."""
        return self.process.poll() is None

    def trainers(self) -> list[psutil.Process]:
        """Return the trainers of a worker, and what forks them."""
        with suppress(psutil.Error):
            return [child for child in self.process.children(recursive=True) if _is_trainer(child)]
        return []

    def drain(self) -> None:
        """Ask it to end in good order, and remember whether it did."""
        self.process.terminate()
        self._drained_at = monotonic()

    def tend(self) -> None:
        """Start it again, where it has been gone for a second."""
        if self.alive:
            self.overdue |= self._drained_at is not None and monotonic() - self._drained_at > _DRAINED_WITHIN_SECONDS
        elif self._ended_at is None:
            self._ended_at = monotonic()
        elif monotonic() - self._ended_at > _RESTART_AFTER_SECONDS:
            self.start()


class Deployment:
    """APIs, workers and what they share. `installation` is the straight way to it, for whoever looks on."""

    def __init__(
        self, installation: Installation, *, postgres: PostgresServer, redis: RedisServer, disk: Path, port: int
    ) -> None:
        self.installation, self.postgres, self.redis, self.disk = installation, postgres, redis, disk
        self._run, self._port = uuid4().hex, port
        ports = [free_port() for _ in range(_APIS)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [self._member(f"API {port}", [*_API, "--port", str(port)]) for port in ports]
        self.workers = [self._member(f"worker {number}", _WORKER) for number in range(1, _WORKERS + 1)]

    @property
    def members(self) -> list[Member]:
        """All that are kept alive."""
        return [*self.apis, *self.workers]

    @property
    def overdue(self) -> list[str]:
        """The members that did not end when they were asked to."""
        return [member.title for member in self.members if member.overdue]

    def has_room(self) -> bool:
        """Whether the store's disk is not filled."""
        return not (self.disk / "ballast").exists()

    def tend(self) -> None:
        """Start again whatever died."""
        for member in self.members:
            member.tend()

    def stop(self) -> list[str]:
        """Ask every member to end, and return which of them did not."""
        for member in self.members:
            member.drain()
        _, alive = psutil.wait_procs([member.process for member in self.members], timeout=_STOPPED_WITHIN_SECONDS)
        return [member.title for member in self.members if member.process in alive]

    def kill(self) -> None:
        """End everything that carries the mark, now."""
        for process in self.marked():
            with suppress(psutil.Error):
                process.kill()
        for member in self.members:
            member.process.wait()
            member.link.close()

    def marked(self) -> list[psutil.Process]:
        """Return every living process that this deployment started, at whatever remove."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self._run and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def orphans(self) -> list[psutil.Process]:
        """Return the trainers, and what forks them, whose worker is gone."""
        workers = {member.process.pid for member in self.workers}
        found = []
        for process in self.marked():
            with suppress(psutil.Error):
                if _is_trainer(process) and workers.isdisjoint(parent.pid for parent in process.parents()):
                    found.append(process)
        return found

    def _member(self, title: str, command: list[str]) -> Member:
        link = Proxy(self._port)
        settings = self.installation.settings
        url = settings.database.replace(f":{self._port}/", f":{link.port}/")
        environment = self.installation.environment() | _TIMES | {_MARK: self._run, "EPOCHD_DATABASE_URL": url}
        log = settings.data_dir / f"{title.replace(' ', '-')}.log"
        return Member(title, command, environment=environment, link=link, log=log)


@contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """A deployment with all its data below `folder`, which answers; killed at the end, if it was not stopped before."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", megabytes=_DISK_MEGABYTES))
        postgres, port, url = stack.enter_context(postgres_on_a_port("epochd_chaos"))
        redis = stack.enter_context(redis_server())
        engine = connect(url)
        migrate(engine)
        engine.dispose()
        settings = Settings(data_dir=folder, database_url=url, redis_url=redis.url, store_url=(disk / "store").as_uri())
        installation = Installation(settings)
        stack.callback(installation.work.close)
        deployment = Deployment(installation, postgres=postgres, redis=redis, disk=disk, port=port)
        stack.callback(deployment.kill)
        wait_for(lambda: all(_listens(url) for url in deployment.urls), seconds=60, what="the APIs")
        yield deployment


def _listens(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    return False


def _is_trainer(process: psutil.Process) -> bool:
    return "worker.training" in process.cmdline()


def freeze(processes: list[psutil.Process]) -> None:
    """Stop processes in their tracks."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGSTOP)


def thaw(processes: list[psutil.Process]) -> None:
    """Let frozen processes go on, those that still are: children first, so that none finds its parent silent."""
    for process in reversed(processes):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)
