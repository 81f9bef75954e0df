"""docker-compose.yml cannot lie: each service's own command runs here with its own environment, and trains a job.

There is no Docker engine in the test, so what differs is named in `REALITY`: where the hosts and folders really are.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
import yaml

from cli.redis_server import find_server
from tests.installation import ROWS, TINY
from tests.services import PostgresServer, find_postgres, missing, wait_for

ROOT = Path(__file__).parents[2]
PASSWORDS = {"POSTGRES_PASSWORD": "postgrespassword1", "REDIS_PASSWORD": "redispassword1"}


class Compose:
    """The file, with its variables filled in as Compose does, and its hosts and folders replaced by real ones."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        text = (ROOT / "docker-compose.yml").read_text()
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: PASSWORDS[match[1]], text).replace("$$", "$")
        self.services: dict[str, Any] = yaml.safe_load(text)["services"]
        self._folder = folder
        self.reality = {
            "@postgres:5432": f"@127.0.0.1:{ports['postgres']}",
            "@redis:6379": f"@127.0.0.1:{ports['redis']}",
            "/data": str(folder / "data"),
            "/tmp/heartbeat": str(folder / "heartbeat"),
            "8000": str(ports["api"]),
            "0.0.0.0": "127.0.0.1",
        }

    def command(self, service: str) -> list[str]:
        """Return a service's command; programs of the image's Python are this Python's."""
        program, *arguments = (self._real(word) for word in self.services[service]["command"])
        beside = Path(sys.executable).parent / program
        return [str(beside if beside.exists() else program), *arguments]

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's environment: its own and no more of epochd's."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        return outside | {name: self._real(value) for name, value in self.services[service]["environment"].items()}

    def healthy(self, service: str) -> bool:
        """Run the service's health check."""
        kind, *test = (self._real(word) for word in self.services[service]["healthcheck"]["test"])
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else [test[0].replace("python", sys.executable), *test[1:]]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def running(self, service: str, command: list[str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """The service's process, stopped as Docker stops it."""
        log = (self._folder / f"{service}.log").open("wb")
        process = subprocess.Popen(
            command or self.command(service),
            env=self.environment(service),
            stdout=log,
            stderr=log,
            cwd=self._folder,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()

    def _real(self, value: str) -> str:
        for name, real in self.reality.items():
            value = value.replace(name, real)
        return value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    (tmp_path / "data").mkdir()
    return Compose(tmp_path, {name: _free_port() for name in ("postgres", "redis", "api")})


def test_the_services_as_written_train_a_job(compose: Compose, tmp_path: Path) -> None:
    binaries = find_postgres()
    if binaries is None:
        missing("PostgreSQL")
        return
    with ExitStack() as stack:
        environment = compose.services["postgres"]["environment"]
        port = int(compose.reality["@postgres:5432"].rpartition(":")[2])
        postgres = PostgresServer(
            binaries, user=environment["POSTGRES_USER"], password=environment["POSTGRES_PASSWORD"], port=port
        )
        stack.callback(postgres.close)
        postgres.new_database(environment["POSTGRES_DB"])
        wrong = f"postgresql://epochd:wrong@127.0.0.1:{port}/epochd"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong)

        port = int(compose.reality["@redis:6379"].rpartition(":")[2])
        _, *options = compose.command("redis")
        listening = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path)]
        stack.enter_context(compose.running("redis", [str(find_server()), *options, *listening]))
        _wait_for_redis(port, compose.services["redis"]["environment"]["REDISCLI_AUTH"])

        migrate = subprocess.run(
            compose.command("migrate"), env=compose.environment("migrate"), cwd=tmp_path, check=False
        )
        assert migrate.returncode == 0
        stack.enter_context(compose.running("api"))
        worker = stack.enter_context(compose.running("worker"))
        wait_for(lambda: compose.healthy("api"), seconds=60, what="the API's health check")
        wait_for(lambda: compose.healthy("worker"), seconds=60, what="the worker's health check")

        key = (tmp_path / "data" / "key").read_text().strip()
        api = httpx.Client(
            base_url=f"http://127.0.0.1:{compose.reality['8000']}",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        )
        dataset = api.post("/datasets", files={"file": ("rows.jsonl", ROWS)}).raise_for_status().json()
        job = api.post("/jobs", json={**TINY, "dataset": dataset["id"]}).raise_for_status().json()
        wait_for(lambda: _status(api, job) in ("succeeded", "failed"), seconds=120, what="the job")
        assert _status(api, job) == "succeeded"
        files = api.get(f"/jobs/{job['id']}/checkpoints").json()["data"][0]["files"]
        assert "model.safetensors" in {file["name"] for file in files}

        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def test_the_file_keeps_its_security_promises(compose: Compose) -> None:
    for name in ("migrate", "api", "worker"):
        service = compose.services[name]
        assert service["user"] == "10001:10001"
        assert service["init"] is True
        assert service["cap_drop"] == ["ALL"]
    assert compose.services["api"]["build"]["target"] == "api"
    assert all(str(port).startswith("127.0.0.1:") for port in compose.services["api"]["ports"])
    assert "ports" not in compose.services["postgres"]
    assert "ports" not in compose.services["redis"]


def test_the_containers_grace_is_longer_than_the_trainers(compose: Compose) -> None:
    worker = compose.services["worker"]
    assert int(worker["stop_grace_period"].rstrip("s")) > int(worker["environment"]["EPOCHD_STOP_GRACE_SECONDS"]) + 30


def _wait_for_redis(port: int, password: str) -> None:
    client = redis.Redis(port=port, password=password)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_for(answers, what="Redis")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port).ping()


def _status(api: httpx.Client, job: dict[str, Any]) -> str:
    status: str = api.get(f"/jobs/{job['id']}").raise_for_status().json()["status"]
    return status
