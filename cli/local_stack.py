"""The local stack: a Redis of its own, the API and a worker, kept alive until someone asks them to stop.

Everything happens in one thread, so that the kernel ends the parts when this process ends, however it does.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import httpx
import sqlalchemy as sa

from cli import data_directory, redis_server
from cli.operator_database import bring_up_to_date, opened
from cli.part import Part
from cli.stop_signals import StopSignals
from core import gpus
from core.errors import Unusable
from core.keys import ensure_first_key
from core.settings import Settings

Say = Callable[[str], None]

_LOOK_EVERY_SECONDS = 0.25
_READY_WITHIN_SECONDS = 60.0
# Together under 15 s. The worker's is what a trainer has to save a checkpoint (10 s), and to publish it.
_WORKER_GRACE_SECONDS = 12.0
_API_GRACE_SECONDS = 1.5
_REDIS_GRACE_SECONDS = 0.5


def run(settings: Settings, say: Say, signals: StopSignals) -> None:
    """Start the stack, keep it alive, and stop it when asked to. Raises Unusable where it cannot start."""
    gpus.named(settings.gpus)  # what is wrong there the worker could only write into its log
    with data_directory.held(settings.data_dir):
        settings = settings.model_copy(update={"port": _free_port(settings.host, settings.port)})
        redis_binary = None if settings.redis_url else redis_server.find_server()
        bring_up_to_date(settings)
        with opened(settings) as work:
            first_key = ensure_first_key(work, settings.key_file)
        stack = _Stack(settings, redis_binary, say, signals)
        try:
            if stack.start():
                data_directory.leave_url(settings.data_dir, url_of(settings))
                say(_welcome(settings, first_key))
                stack.keep_alive()
        finally:
            data_directory.forget_url(settings.data_dir)
            stack.stop()


def url_of(settings: Settings) -> str:
    """Return where the API answers on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


class _Stack:
    """The parts, in the order they start; they stop in the opposite one."""

    def __init__(self, settings: Settings, redis_binary: Path | None, say: Say, signals: StopSignals) -> None:
        self._say, self._signals = say, signals
        self._data_dir = settings.data_dir.resolve()
        self._health = f"{url_of(settings)}/healthz"
        environment = _environment(settings)
        self._socket: Path | None = None
        self._redis: Part | None = None
        if redis_binary:
            self._socket = redis_server.socket_for(self._data_dir)
            environment["EPOCHD_REDIS_URL"] = f"unix://{self._socket}"
            command = redis_server.command(redis_binary, self._socket, self._data_dir)
            self._redis = self._part("Redis", "redis", command, environment)
        self._api = self._part("The API", "api", _api_command(), environment)
        self._worker = self._part("The worker", "worker", _worker_command(), environment)

    def start(self) -> bool:
        """Start everything and return True once the API answers, False if asked to stop meanwhile."""
        if self._redis and self._socket:
            socket = self._socket
            self._redis.start()
            if not self._wait([self._redis], lambda: redis_server.answers(socket)):
                return False
        self._api.start()
        self._worker.start()
        return self._wait(self._parts, self._healthy)

    def keep_alive(self) -> None:
        """Start again whatever dies, until asked to stop."""
        while not self._signals.stop:
            self._tend(self._parts)

    def stop(self) -> None:
        """End everything: the worker first, for it has a checkpoint to save; Redis last, for the others talk to it."""
        if not self._worker.ended():
            self._say("Stopping: a job that runs saves a checkpoint first. Ctrl-C again to stop at once.")
        self._end(self._worker, _WORKER_GRACE_SECONDS)
        self._end(self._api, _API_GRACE_SECONDS)
        if self._redis and self._socket:
            self._end(self._redis, _REDIS_GRACE_SECONDS)
            redis_server.remove_socket(self._socket, self._data_dir)
        self._say("Stopped.")

    @property
    def _parts(self) -> list[Part]:
        return [part for part in (self._redis, self._api, self._worker) if part]

    def _part(self, title: str, name: str, command: list[str], environment: dict[str, str]) -> Part:
        log = self._data_dir / "logs" / f"{name}.log"
        return Part(title, command, log=log, environment=environment, data_dir=self._data_dir)

    def _tend(self, parts: Iterable[Part]) -> None:
        for part in parts:
            part.tend(self._say)
        time.sleep(_LOOK_EVERY_SECONDS)

    def _wait(self, parts: list[Part], ready: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _READY_WITHIN_SECONDS
        while not self._signals.stop:
            if ready():
                return True
            if time.monotonic() > deadline:
                titles = " or ".join(part.title for part in parts)
                raise Unusable(
                    f"{titles} did not start within {_READY_WITHIN_SECONDS:.0f} s. "
                    f"The logs in {self._data_dir / 'logs'} say why."
                )
            self._tend(parts)
        return False

    def _healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            # No proxy stands between a machine and itself.
            return httpx.get(self._health, timeout=2.0, trust_env=False).is_success
        return False

    def _end(self, part: Part, grace_seconds: float) -> None:
        part.terminate()
        deadline = time.monotonic() + grace_seconds
        while not (part.ended() or self._signals.at_once or time.monotonic() > deadline):
            time.sleep(_LOOK_EVERY_SECONDS)
        part.kill()


def _free_port(host: str, port: int) -> int:
    """Return the port the API can have: `port`, or any where that is 0. Raises Unusable where it is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the API will do it: connections that are still closing do not count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise Unusable(
            f"The API cannot listen on {host}:{port} ({error.strerror}). Name another port with EPOCHD_PORT, "
            "or another address with EPOCHD_HOST."
        ) from error


def _environment(settings: Settings) -> dict[str, str]:
    """Return what the parts are told: the same settings, with nothing in them relative to a working directory."""
    return os.environ | {
        "EPOCHD_DATA_DIR": str(settings.data_dir.resolve()),
        "EPOCHD_DATABASE_URL": _absolute(settings.database),
        "EPOCHD_HOST": settings.host,
        "EPOCHD_PORT": str(settings.port),
    }


def _absolute(database_url: str) -> str:
    url = sa.make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        url = url.set(database=str(Path(url.database).resolve()))
    return url.render_as_string(hide_password=False)


def _api_command() -> list[str]:
    return [sys.executable, "-P", "-m", "app", "--quiet", "--stop-seconds", "1"]


def _worker_command() -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"),
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def _welcome(settings: Settings, first_key: str | None) -> str:
    url, key_file = url_of(settings), settings.key_file
    key = f"{first_key}  (also in {key_file})" if first_key else f"in {key_file}"
    if not key_file.exists():
        key = "make one with `epochd keys create --owner NAME`"
    return (
        "\nepochd is ready.\n"
        f"  URL   {url}\n"
        f"  Key   {key}\n"
        f"  Logs  {settings.data_dir / 'logs'}\n"
        f'  Try   curl -H "Authorization: Bearer $(cat {key_file})" {url}/jobs\n'
        "\nCtrl-C saves what is running and stops everything."
    )
