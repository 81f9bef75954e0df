"""A large file arrives whole, although its connection is cut and the API is killed on the way."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

import cli.upload
from cli.client import Client
from tests.faults.proxy import Proxy
from tests.installation import Installation
from tests.services import wait_for

_LINE = b'{"text": "' + b"word " * 200 + b'"}\n'
_LINES = 8000
# After so many chunks of a request its sender waits for what the test does to it.
_CHUNKS = 8


@contextmanager
def _api(installation: Installation, port: int) -> Iterator[None]:
    """A real API process on a port; killed at the end."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:app", "--port", str(port)]
    with (installation.settings.data_dir / "api.log").open("a") as log:
        process = subprocess.Popen(command, env=installation.environment(), stdout=log, stderr=log, cwd="/")

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, what="the API")
        yield
    finally:
        process.kill()
        process.wait()


class _Sender:
    """A push in a thread of its own, each of whose requests stops after a few chunks until it is let go on."""

    def __init__(self, client: Client, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stopped, self.go_on, self.offsets, self.dataset = Event(), Event(), list[int](), dict[str, Any]()
        chunks = cli.upload._chunks

        def stopping(path: Path, offset: int, *bar: Any) -> Iterator[bytes]:
            self.offsets.append(offset)
            for number, chunk in enumerate(chunks(path, offset, *bar)):
                if number == _CHUNKS and len(self.offsets) <= 2:
                    self.stopped.set()
                    self.go_on.wait()
                    self.go_on.clear()
                yield chunk

        monkeypatch.setattr(cli.upload, "_chunks", stopping)
        self.thread = Thread(target=lambda: self.dataset.update(cli.upload.push(client, path)), daemon=True)
        self.thread.start()

    def until_it_stops(self) -> None:
        """Wait until a request is half sent."""
        assert self.stopped.wait(60)
        self.stopped.clear()


def test_a_cut_connection_and_a_killed_api_cost_nothing_that_has_come(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = tmp_path / "large.jsonl", tmp_path / "store"
    path.write_bytes(_LINE * _LINES)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = Proxy(port)
    client = Client(f"http://127.0.0.1:{proxy.port}", installation.settings.key_file.read_text().strip())

    def come() -> int:
        return sum(file.stat().st_size for file in (store / "uploads").glob("*"))

    with _api(installation, port):
        sender = _Sender(client, path, monkeypatch)
        sender.until_it_stops()
        first = wait_for(come, what="the upload's beginning")
        proxy.blip()
        sender.go_on.set()
        sender.until_it_stops()
        second = wait_for(lambda: come() if come() > first else 0, what="more of it")
    with _api(installation, port):
        sender.go_on.set()
        sender.thread.join(120)
    assert not sender.thread.is_alive()
    proxy.close()
    begun, after_the_cut, after_the_kill = sender.offsets[:3]
    assert begun == 0
    assert first <= after_the_cut, "nothing was sent twice that had come before the cut"
    assert second <= after_the_kill
    assert sender.dataset["sha256"] == hashlib.sha256(_LINE * _LINES).hexdigest()
    assert sender.dataset["rows"] == _LINES
    assert os.listdir(store / "uploads") == []
