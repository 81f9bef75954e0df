"""The real API on a port of its own, and a hand to play the worker with."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.__main__ import Server, server_config
from app.main import create_app
from core import keys
from core.log_setup import set_up_logging
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork
from tests.app.played_worker import PlayedWorker
from tests.services import wait_for

# For what does not depend on the database: once is enough.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass
class Api:
    """A served API and a client of it that presents the first key."""

    app: FastAPI
    port: int
    key: str
    http: httpx.Client

    @property
    def work(self) -> UnitOfWork:
        """The unit of work of the API itself."""
        work: UnitOfWork = self.app.state.resources.work
        return work

    @property
    def store(self) -> Store:
        """The store of the API itself."""
        store: Store = self.app.state.resources.store
        return store

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs beside its address."""
        return {"Authorization": f"Bearer {self.key}"}

    def ws(self, path: str) -> str:
        """Return a WebSocket address."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def other_key(self, owner: str, scopes: list[str] | None = None) -> dict[str, str]:
        """Return the headers of another owner."""
        with self.work.begin() as session:
            return {"Authorization": f"Bearer {keys.create(session, owner, scopes)}"}

    def dataset(self, text: str = '{"text": "one"}\n{"text": "two"}\n', **params: str) -> str:
        """Upload a dataset and return its id."""
        answer = self.http.post("/datasets", params={"filename": "d.jsonl", **params}, content=text)
        assert answer.status_code in (200, 201), answer.text
        id_: str = answer.json()["id"]
        return id_

    def worker(self, **spec: Any) -> PlayedWorker:
        """Submit a job and take it up."""
        return PlayedWorker(self.work, self.job(**spec)["id"])

    def job(self, **spec: Any) -> dict[str, Any]:
        """Submit a job and return it."""
        answer = self.http.post("/jobs", json={"dataset": self.dataset(), **spec})
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[Api]:
    """Serve an installation for as long as the block runs, on any free port or on this one."""
    handlers = logging.root.handlers
    set_up_logging()
    app = create_app(settings)
    # Wherever the settings say that it listens: here it does so on this machine alone.
    here = settings.model_copy(update={"host": "127.0.0.1", "port": port})
    config = server_config(app, here, quiet=False, stop_seconds=3)
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, what="the API")
    port = server.servers[0].sockets[0].getsockname()[1]
    key = settings.key_file.read_text().strip()
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    )
    try:
        with client:
            yield Api(app, port, key, client)
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(10)
        logging.root.handlers = handlers
        assert not thread.is_alive(), "the API does not stop"
