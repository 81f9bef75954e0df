"""docs/operations.md says how to back a deployment up and restore it: its lines do, and the job that ran goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from websockets.sync.client import connect

from cli.redis_server import find_server
from core import checkpoints, datasets
from core.settings import Settings
from tests.app.served import serving
from tests.app.watcher import SocketWatcher, log_of_record
from tests.faults.account import account
from tests.installation import LONG, ROWS, TINY, Installation
from tests.services import PostgresServer, RedisServer, find_postgres, missing, redis_server, wait_for
from tests.stack import Stack

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 3.0


def _scripts(title: str) -> tuple[str, str]:
    """Return the two scripts of a part of the page: the one that takes a backup, and the one that restores it."""
    part = (ROOT / "docs" / "operations.md").read_text().partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    back_up, restore = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return back_up, restore


def _run(script: str, backup: Path, *, cwd: Path, here: dict[str, str], environment: dict[str, str]) -> None:
    """Run a script as it is written, but for what lies elsewhere here."""
    for written, real in here.items():
        assert written in script, written
        script = script.replace(written, real)
    done = subprocess.run(
        ["bash", "-c", script, "backup", str(backup)],
        cwd=cwd,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The only thing that `cp` may say: retention has been there first.
    assert all("No such file or directory" in line for line in done.stderr.splitlines()), done.stderr


def _get(api: httpx.Client, path: str, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = api.get(path, params=params).raise_for_status().json()
    return answer


def _submit(api: httpx.Client, dataset_id: str, key: str, changes: dict[str, Any]) -> str:
    spec = {**TINY, "dataset": dataset_id, **changes}
    answer = api.post("/jobs", json=spec, headers={"Idempotency-Key": key}).raise_for_status()
    return str(answer.json()["id"])


def _log(api: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = _get(api, f"/jobs/{job_id}/events", limit=10_000)["events"]
    return events


def _checkpoints(api: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _get(api, f"/jobs/{job_id}/checkpoints")["data"]
    return rows


def _files(api: httpx.Client, job_id: str) -> dict[str, str]:
    """Return the hash of each file of each checkpoint, by its address."""
    return {file["url"]: file["sha256"] for row in _checkpoints(api, job_id) for file in row["files"]}


def _downloaded(api: httpx.Client, addresses: dict[str, str]) -> dict[str, str]:
    return {url: sha256(api.get(url).raise_for_status().content).hexdigest() for url in addresses}


def _weights(api: httpx.Client, job_id: str) -> str:
    files = _checkpoints(api, job_id)[0]["files"]
    return next(str(file["sha256"]) for file in files if file["name"] == "model.safetensors")


def _watch(stack: Stack, job_id: str, after: str) -> list[dict[str, Any]]:
    """Hear what comes behind a cursor, to the end of the log."""
    address = f"{stack.url.replace('http', 'ws', 1)}/jobs/{job_id}/stream?after={after}"
    with connect(address, additional_headers={"Authorization": f"Bearer {stack.key}"}, proxy=None) as socket:
        return [json.loads(line) for message in socket for line in str(message).split("\n")]


def _client(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {stack.key}"}, trust_env=False)


def test_a_local_stack_that_is_lost_comes_back_and_its_running_job_ends_in_the_same_bits(
    new_stack: Callable[..., Stack], undisturbed_weights: str, tmp_path: Path
) -> None:
    back_up, restore = _scripts("The local stack")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    data_dir, backup = tmp_path / ".epochd", tmp_path / "backup"
    stack = new_stack(data_dir).ready()
    with _client(stack) as api:
        dataset = api.post("/datasets", files={"file": ("rows.jsonl", ROWS)}).raise_for_status().json()["id"]
        ended = _submit(api, dataset, "ended", {"training": {"epochs": 1, "batch_size": 4}})
        running = _submit(api, dataset, "running", LONG)
        stack.wait_for(lambda: len(_checkpoints(api, running)) >= 2, what="two checkpoints")
        newest = _checkpoints(api, running)[0]
        cursor = _log(api, running)[-1]["id"]
        _run(back_up, backup, cwd=tmp_path, here={}, environment=stack.environment)
        assert _get(api, f"/jobs/{running}")["status"] == "running"
        stack.wait_for(lambda: _checkpoints(api, running)[0] != newest, what="another checkpoint")
        files, story, later = _files(api, ended), _log(api, running), _submit(api, dataset, "later", {})
    stack.stop(signal.SIGKILL)
    wait_for(stack.all_gone, what="the end of every process")
    shutil.rmtree(data_dir)

    _run(restore, backup, cwd=tmp_path, here={".venv/bin/epochd up": ""}, environment=stack.environment)
    stack = new_stack(data_dir).ready()
    with _client(stack) as api:
        assert files
        assert _downloaded(api, _files(api, ended)) == files
        assert _submit(api, dataset, "running", LONG) == running
        assert api.get(f"/jobs/{later}").status_code == 404
        heard = _watch(stack, running, cursor)
        log = _log(api, running)
        assert heard == [event for event in log if _place(event) > _place({"id": cursor})]
        types = [event["type"] for event in log]
        kept = types.index("requeued")
        assert log[:kept] == story[:kept]
        assert types[-1] == "succeeded"
        assert log[types.index("started", kept)]["data"]["from_step"] > 0
        assert _weights(api, running) == undisturbed_weights
        assert _downloaded(api, _files(api, running)) == _files(api, running)


def _place(event: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, event["id"].split("-")))


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that a test may empty."""
    with redis_server() as server:
        yield server


@pytest.fixture
def programs() -> str:
    """Where PostgreSQL's programs and those of this Python are looked for first."""
    binaries = find_postgres()
    if binaries is None:
        missing("PostgreSQL")
    return f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def _settings(folder: Path, database_url: str, redis: RedisServer) -> Settings:
    return Settings(
        data_dir=folder / "data",
        database_url=database_url,
        redis_url=redis.url,
        store_url=(folder / "srv" / "store").as_uri(),
    )


def _environment(settings: Settings, programs: str) -> dict[str, str]:
    names = {"EPOCHD_DATA_DIR": settings.data_dir, "EPOCHD_DATABASE_URL": settings.database, "PATH": programs}
    return os.environ | {name: str(value) for name, value in names.items()}


def test_postgresql_and_a_folder_come_back_with_a_checkpoint_too_few_and_some_too_many(
    postgres: PostgresServer, own_redis: RedisServer, programs: str, undisturbed_weights: str, tmp_path: Path
) -> None:
    back_up, restore = _scripts("PostgreSQL and a folder")
    backup, lease = tmp_path / "backup", {"EPOCHD_LEASE_SECONDS": str(LEASE_SECONDS)}
    settings = _settings(tmp_path / "old", postgres.new_database("old", like="template_epochd"), own_redis)
    old = Installation(settings)
    with old.worker(**lease):
        job_id = old.submit(old.add_dataset(), **LONG)
        wait_for(lambda: len(old.checkpoints(job_id)) >= 2, seconds=60, what="two checkpoints")
        cursor = str(old.log(job_id)[-1].cursor)
        here = {"/srv/epochd": str(tmp_path / "old" / "srv")}
        _run(back_up, backup, cwd=tmp_path, here=here, environment=_environment(settings, programs))
        assert old.job(job_id).status == "running"
        newest = old.checkpoints(job_id)[0]
        wait_for(lambda: old.checkpoints(job_id)[0] != newest, seconds=60, what="another checkpoint")
    old.work.close()

    # The same Redis: what it holds of the old deployment's log has to go.
    settings = _settings(tmp_path / "new", postgres.new_database("new"), own_redis)
    redis_cli = f"{find_server().parent / 'redis-cli'} -s {own_redis.url.removeprefix('unix://')}"
    here = {"/srv/epochd": str(tmp_path / "new" / "srv"), 'redis-cli -u "$EPOCHD_REDIS_URL"': redis_cli}
    _run(restore, backup, cwd=tmp_path, here=here, environment=_environment(settings, programs))
    new = Installation(settings)
    lost = new.checkpoints(job_id)[0]
    shutil.rmtree(new.folder(lost))
    # The old deployment was requeued, claimed and lost once more, after the backup was taken.
    reached_again = new.job(job_id).fence + 2
    for step in range(1, new.job(job_id).plan["steps"] + 1):
        folder = tmp_path / "new" / "srv" / "store" / checkpoints.folder_key(job_id) / f"{reached_again}-{step}"
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.safetensors").write_text("of a past that nobody knows")
    with psycopg.connect(settings.database, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET worker = 'another machine:1:2:3.00'")
    with serving(settings) as api:
        answer = api.http.get(f"/jobs/{job_id}/checkpoints/{lost.epoch}/archive")
        assert (answer.status_code, "the store has lost them" in answer.text) == (404, True)
        watcher = SocketWatcher(api, job_id, cursor).start()
        began = datetime.now(UTC)
        with new.worker(**lease):
            new.wait_for_status(job_id, "succeeded", "failed")
        watcher.wait_until_over()
        assert watcher.ids == log_of_record(api, job_id, cursor)
    log = new.log(job_id)
    (requeued,) = [event for event in log if event.type == "requeued"]
    assert (requeued.data["reason"], requeued.data["failures"]) == ("worker_lost", 1)
    assert requeued.at > began + timedelta(seconds=LEASE_SECONDS)
    (damaged,) = [event.data for event in log if event.data.get("code") == "checkpoint_damaged"]
    assert f"step {lost.step} was set aside" in damaged["message"]
    account(new, job_id, undisturbed_weights)
    new.work.close()


def test_the_lines_for_compose_bring_back_what_comes_and_goes_while_they_run(
    postgres: PostgresServer, own_redis: RedisServer, programs: str, tmp_path: Path
) -> None:
    back_up, restore = _scripts("Compose")
    backup = tmp_path / "backup"
    url = postgres.new_database("epochd", like="template_epochd")
    postgres.new_database("restored")
    environment = os.environ | {"PGHOST": str(conninfo_to_dict(url)["host"]), "PATH": programs}
    made = Installation(Settings(data_dir=tmp_path / "data", database_url=url, redis_url=own_redis.url))
    dataset = made.add_dataset()
    made.work.close()
    uploaded = tmp_path / "data" / "store" / datasets.store_key(dataset.id)
    here = {
        "docker compose exec -T api ": "",
        "docker compose exec -T postgres ": "",
        "docker compose cp api:": "cp -a ",
        "/data": str(tmp_path / "data"),
        # While the database is being copied one file goes, and another comes.
        '"$1/epochd.dump"\n': f'"$1/epochd.dump"\nmv {uploaded} {uploaded}_later\n',
    }
    _run(back_up, backup, cwd=tmp_path, here=here, environment=environment)
    here = {
        "docker compose up --detach --wait postgres\n": "",
        "docker compose exec -T postgres ": "",
        "docker compose run -T --rm --no-deps api ": "",
        "docker compose up --detach\n": "",
        "--dbname epochd": "--dbname restored",
        "/data": str(tmp_path / "restored"),
    }
    (tmp_path / "restored").mkdir()
    _run(restore, backup, cwd=tmp_path, here=here, environment=environment)
    url = url.replace("/epochd?", "/restored?")
    back = Installation(Settings(data_dir=tmp_path / "restored", database_url=url, redis_url=own_redis.url))
    with back.work.reading() as session:
        assert datasets.get(session, made.owner, dataset.id) == dataset
    for key in (datasets.store_key(dataset.id), f"{datasets.store_key(dataset.id)}_later"):
        assert back.store.fetch(key).read_text() == ROWS
    back.work.close()
