"""Real servers for tests: a PostgreSQL cluster and Redis processes of our own, in temporary folders."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

import psycopg
import pytest
import redis

from cli.redis_server import find_server

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "the condition") -> T:
    """Return the condition's value as soon as it is true. Fails the test where that takes too long."""
    deadline = monotonic() + seconds
    while not (value := condition()):
        if monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds:.0f} s")
        sleep(0.05)
    return value


def missing(component: str) -> None:
    """Skip for want of a real component; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{component} is missing, and CI must have it")
    pytest.skip(f"{component} is missing")


class RedisServer:
    """A Redis of a test's own on a unix socket. Its folder is short, since a socket's path has about 100 bytes."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="epochd-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._folder}/s"
        self.dumps = self._folder / "dumps"
        self.start()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        self.dumps.mkdir(exist_ok=True)
        arguments = ["--port", "0", "--unixsocket", f"{self._folder}/s", "--save", "", "--dir", str(self.dumps)]
        self._process = subprocess.Popen([str(find_server()), *arguments], stdout=subprocess.DEVNULL)
        wait_for(self._answers, what="Redis")

    def kill(self) -> None:
        """Kill it: what it held is gone."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    def client(self) -> redis.Redis:
        """Return a client of it."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False


class PostgresServer:
    """A PostgreSQL cluster without fsync: on a unix socket for whoever comes, or on a port for who has the password."""

    def __init__(self, binaries: Path, *, user: str = "epochd", password: str = "", port: int = 0) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="epochd-pg-"))
        # PostgreSQL refuses to run as root; Debian's package brings a user for it.
        self._as = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        self._binaries = binaries
        data = str(self._folder / "data")
        (self._folder / "password").write_text(password or "unused")
        hosts = ["--auth-host=scram-sha-256", f"--pwfile={self._folder / 'password'}", "--auth-local=trust"]
        self._run("initdb", "-D", data, "-U", user, *hosts, "-E", "UTF8", "--no-sync")
        listen = f"-c listen_addresses=127.0.0.1 -c port={port}" if port else "-c listen_addresses="
        self._port = port or 5432
        settings = f"-k {self._folder} {listen} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", data, "-w", "-o", settings, "-l", str(self._folder / "log"), "start")

    def new_database(self, name: str, *, like: str = "template1") -> str:
        """Create a database, a copy of another, and return its URL."""
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}"')
        return self._dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def empty_database(self, name: str, tables: list[str]) -> None:
        """Delete every row of the tables, whoever is connected: far quicker than a new database for each test."""
        with psycopg.connect(self._dsn(name), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for table in tables:
                connection.execute(f'DELETE FROM "{table}"')

    def restart(self) -> None:
        """End every process of it at once, as a crash would, start it again and wait until it answers."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "restart")

    def close(self) -> None:
        """Stop the cluster and remove it."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _dsn(self, name: str) -> str:
        return f"postgresql://epochd@/{name}?host={self._folder}&port={self._port}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._as,  # type: ignore[call-overload]
        )


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, if it is installed."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *map(Path, filter(None, [shutil.which("initdb")]))]
    return found[-1].parent if found else None


@contextmanager
def postgres_on_a_port(database: str) -> Iterator[tuple[PostgresServer, int, str]]:
    """A PostgreSQL cluster that listens on a port, that port, and the URL of a new database in it."""
    binaries = find_postgres()
    if binaries is None:
        missing("PostgreSQL")
        return
    port = free_port()
    server = PostgresServer(binaries, password="secret", port=port)
    try:
        server.new_database(database)
        yield server, port, f"postgresql://epochd:secret@127.0.0.1:{port}/{database}"
    finally:
        server.close()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A Redis for as long as the block runs."""
    server = RedisServer()
    try:
        yield server
    finally:
        server.close()
