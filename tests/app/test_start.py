"""The API as a process: it refuses to start in one sentence, and stops at once whoever watches."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import sqlalchemy as sa

from app.main import app
from core.database import connect
from tests.app.served import Api
from tests.app.watcher import PollWatcher, SocketWatcher
from tests.services import RedisServer, wait_for


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Return the environment of an installation."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
    return own | {"EPOCHD_DATA_DIR": str(data_dir), **settings}


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Give the tests their logging back."""
    handlers, level = logging.root.handlers, logging.root.level
    yield
    logging.root.handlers = handlers
    logging.root.setLevel(level)


def refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    """Start the API where it must not start, and return what it says."""
    for name, value in {"EPOCHD_DATA_DIR": str(data_dir), **settings}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        app()
    return str(ended.value)


def test_it_refuses_a_database_that_is_not_migrated_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "epochd.sqlite3").touch()
    ended = subprocess.run(
        [sys.executable, "-m", "app"],
        env=environment(tmp_path, EPOCHD_PORT="0"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert "migrate it" in line


def test_it_refuses_the_database_of_a_newer_version(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    engine = connect(f"sqlite:///{tmp_path}/epochd.sqlite3")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'from the future'"))
    engine.dispose()
    assert "newer version" in refused(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"EPOCHD_DATABASE_URL": "mysql://x/y"}, "EPOCHD_DATABASE_URL"),
        ({"EPOCHD_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "does not answer"),
        ({"EPOCHD_DATABASE_URL": "no url"}, "EPOCHD_DATABASE_URL"),
        ({"EPOCHD_STORE_URL": "ftp://x"}, "EPOCHD_STORE_URL"),
        ({"EPOCHD_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/x"}, "does not answer"),
        ({"EPOCHD_DATABASE_URL": "mysql://me:hunter2@x/y"}, "EPOCHD_DATABASE_URL"),
        ({"EPOCHD_STORE_URL": "s3://me:hunter2@x"}, "EPOCHD_STORE_URL"),
        ({"EPOCHD_REDIS_URL": "redis://:hunter2@[x"}, "EPOCHD_REDIS_URL"),
        ({"EPOCHD_HOST": "0.0.0.0"}, "EPOCHD_TLS_IN_FRONT"),
        ({"EPOCHD_REDIS_URL": "redis://10.1.1.1"}, "password"),
        ({"EPOCHD_PORT": "x"}, "EPOCHD_PORT"),
    ],
)
def test_it_refuses_settings_that_cannot_work(
    tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    told = refused(tmp_path, monkeypatch, **settings)
    assert said in told
    assert "hunter2" not in told


@contextmanager
def running(data_dir: Path, redis: RedisServer) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the API as a process and give it and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        env=environment(data_dir, EPOCHD_PORT="0", EPOCHD_REDIS_URL=redis.url),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        said = next(line for line in process.stderr if "running on" in line)
        yield process, int(said.split("http://127.0.0.1:")[1].split(" ")[0])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_whoever_watches(
    tmp_path: Path, migrated_sqlite: Path, own_redis: RedisServer, sign: signal.Signals
) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    with running(tmp_path, own_redis) as (process, port):
        key = (tmp_path / "key").read_text().strip()
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        base, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client, ExitStack() as stack:
            api = Api(SimpleNamespace(), port, key, client)  # type: ignore[arg-type]
            job = api.job()["id"]
            stream = SocketWatcher(api, job, "0-1").start()
            poll = PollWatcher(api, job, "0-1", once=True).start()
            events = stack.enter_context(
                client.stream("GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"})
            )
            heard = events.iter_lines()
            assert next(heard) == "id: 0-1"
            wait_for(lambda: own_redis.client().info("clients")["blocked_clients"] == 1, what="the reader")
            process.send_signal(sign)
            assert list(heard)[2:] == ["", ":", ""]  # the answer ends as it should, with a sign of life
            process.wait(10)
            stream.wait_until_over()
            poll.wait_until_over()
        assert process.stderr
        logged = [json.loads(line) for line in process.stderr]
        posted = [line for line in logged if "POST /jobs" in line["event"]]
        assert posted
        assert all(line["request_id"].startswith("req_") and line["level"] == "info" for line in posted)
        assert not [line for line in logged if line["level"] not in ("info", "debug")]
        assert stream.close_code == 1012
        assert poll.ids == []
