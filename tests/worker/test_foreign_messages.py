"""Whoever can write to the queue can ring, and nothing else: a real worker is sent what epochd never sends."""

import base64
import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from core.dispatch import QUEUE, TASK, celery_app
from core.models import Dataset
from tests.installation import Installation
from tests.services import RedisServer, wait_for

NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.fixture
def own_redis_installation(installation: Installation, redis: RedisServer) -> Installation:
    """An installation whose queue is empty."""
    redis.client().delete(QUEUE)
    return installation


def raw(body: bytes, content_type: str = "application/json", **headers: Any) -> str:
    """Return a message as it lies in Redis."""
    properties = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
        "correlation_id": str(uuid4()),
    }
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": TASK, "id": str(uuid4()), "argsrepr": "()", "kwargsrepr": "{}", **headers},
        "properties": properties,
    }
    return json.dumps(envelope)


class _Runs:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


# What is not even a message.
NO_MESSAGES = ["garbage", "", "{}", "[1]", '"x"', "null", b"\xff\xfe", "[" * 100_000]
NO_MESSAGES += [
    '{"body": "!!!", "properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": "1"}}',
    '{"headers": 1, "body": "YQ==", "properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": 1}}',
]


def forged(marker: Path) -> list[str]:
    """Return messages of every kind that must come to nothing."""
    bell = [[], {}, NOTHING]
    link = {"task": TASK, "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    return [
        raw(json.dumps(bell).encode(), task="os.system"),
        raw(json.dumps([["touch x"], {}, NOTHING]).encode(), task="celery.map"),
        raw(json.dumps(bell).encode(), task="celery.backend_cleanup"),
        raw(json.dumps([[1, 2], {"x": 1}, NOTHING]).encode()),
        raw(json.dumps([[], {}, NOTHING | {"callbacks": [link] * 3}]).encode()),
        raw(json.dumps([[], {}, NOTHING | {"chain": [link] * 3}]).encode()),
        raw(json.dumps([[], {}, NOTHING | {"chord": link}]).encode()),
        raw(json.dumps(bell).encode(), eta="2999-01-01T00:00:00+00:00"),
        raw(json.dumps(bell).encode(), expires="nonsense"),
        raw(json.dumps(bell).encode(), id=1),
        raw(json.dumps(bell).encode(), id="x" * 1_000_000),
        raw(b"x" * 20_000_000),
        raw(b"{"),
        raw(b"[" * 400),
        raw(pickle.dumps(_Runs(marker)), "application/x-python-serialize"),
        raw(f"!!python/object/apply:os.system ['touch {marker}']".encode(), "application/x-yaml"),
        raw(b"\xff\xfe", "application/data"),
        raw(json.dumps({"task": TASK, "id": "1", "args": [], "kwargs": {}}).encode(), task=None),
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_no_bell_is_counted_and_nothing_comes_of_it(
    own_redis_installation: Installation, dataset: Dataset, redis: RedisServer, tmp_path: Path
) -> None:
    installation, marker = own_redis_installation, tmp_path / "it-ran"
    client = redis.client()
    log = installation.settings.data_dir / "worker.log"
    with installation.worker() as worker:
        client.lpush(QUEUE, *NO_MESSAGES, *forged(marker))
        client.lpush(QUEUE, *[raw(json.dumps([[], {}, NOTHING]).encode(), task="no.such.task")] * 300)
        bell = json.dumps([[], {}, NOTHING]).encode()
        client.lpush(QUEUE, *[raw(bell)] * 10_000, *[raw(bell) for _ in range(300)])
        job = installation.submit(dataset, training={"epochs": 1, "batch_size": 4})
        assert installation.wait_for_status(job, "succeeded", "failed").status == "succeeded"
        wait_for(lambda: client.llen(QUEUE) == 0, seconds=120, what="the queue's end")
        assert worker.is_running()
        worker.terminate()
        worker.wait(30)
    assert not marker.exists()
    assert [event.type for event in installation.log(job)].count("started") == 1
    said = log.read_text()
    counted = [json.loads(line)["number"] for line in said.splitlines() if '"foreign_messages"' in line]
    assert counted[-1] >= 300 + 9_999, "of a bell that was doubled one is heard"
    assert len(said) < 100_000, "a flood of messages is no flood of words"
    assert "Traceback" not in said


@contextmanager
def writing_nothing(redis: RedisServer) -> Iterator[None]:
    """A Redis that cannot save what it holds, and therefore refuses to be written to (MISCONF)."""
    client = redis.client()
    shutil.rmtree(redis.dumps)
    try:
        client.config_set("save", "3600 1")
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a save that fails")
        yield
    finally:
        client.config_set("save", "")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_redis_that_refuses_ends_no_worker(
    own_redis_installation: Installation, dataset: Dataset, redis: RedisServer
) -> None:
    installation, client = own_redis_installation, redis.client()
    log = installation.settings.data_dir / "worker.log"

    def a_job_runs() -> None:
        job = installation.submit(dataset, training={"epochs": 1, "batch_size": 4})
        assert installation.wait_for_status(job, "succeeded", "failed").status == "succeeded"

    def a_bell_is_heard() -> None:
        client.lpush(QUEUE, raw(json.dumps([[], {}, NOTHING]).encode()))
        wait_for(lambda: client.llen(QUEUE) == 0, what="a bell that is heard")

    client.set(QUEUE, "somebody else's")
    with installation.worker() as worker:
        wait_for(lambda: "redis_refuses" in log.read_text(), what="Redis' refusal")
        a_job_runs()
        client.delete(QUEUE)
        a_bell_is_heard()
        with writing_nothing(redis):
            wait_for(lambda: "MISCONF" in log.read_text(), what="Redis' refusal")
            a_job_runs()
        a_bell_is_heard()
        assert worker.is_running()
    assert "Traceback" not in log.read_text()


def test_one_task_is_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHD_DATA_DIR", str(tmp_path))
    from worker.celery_app import app  # noqa: PLC0415 - it reads its settings where it is imported

    assert isinstance(app, Celery)
    assert set(app.tasks) == {TASK}
    assert celery_app("redis://localhost").conf.worker_enable_remote_control is False
