"""Large files on their way to clients that are slow or go: exact, holding up nobody, and let go of."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app import ranged_response
from app.ranged_response import FileSegment, RangedResponse
from core import checkpoints
from tests.app.played_worker import PlayedWorker
from tests.app.served import ON_SQLITE, Api
from tests.services import wait_for

# Far more than the buffers of both sockets hold.
LARGE = os.urandom(2**20) * 40


@pytest.fixture
def worker(api: Api) -> PlayedWorker:
    """A worker that has published one large file."""
    worker = api.worker()
    worker.checkpoint(api.store, {"model.safetensors": LARGE}, epoch=1, step=10)
    return worker


def stored(api: Api, worker: PlayedWorker) -> Path:
    """Return where that file lies."""
    with api.work.reading() as session:
        key = checkpoints.store_key(checkpoints.find(session, worker.job_id, 1))
    return api.store.fetch(key) / "model" / "model.safetensors"


def asked(api: Api, worker: PlayedWorker, start: int = 0) -> socket.socket:
    """Return a connection that has asked for the file from a place on, and has read nothing."""
    raw = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    lines = [f"GET /jobs/{worker.job_id}/checkpoints/1/files/model.safetensors HTTP/1.1", "Host: localhost"]
    lines += [f"Authorization: Bearer {api.key}", f"Range: bytes={start}-", "Connection: close"]
    raw.sendall("\r\n".join([*lines, "", ""]).encode())
    return raw


def open_files(path: Path) -> int:
    """Return how often this process has a file open."""
    return sum(found.path == str(path.resolve()) for found in psutil.Process().open_files())


def connections(api: Api) -> int:
    """Return how many connections of its clients the API has open, here where it is served."""
    found = psutil.Process().net_connections()
    return sum(one.laddr.port == api.port and one.status != psutil.CONN_LISTEN for one in found)


def rest(raw: socket.socket) -> bytes:
    """Read to the end."""
    came = bytearray()
    while more := raw.recv(2**20):
        came += more
    return bytes(came)


@ON_SQLITE
def test_a_slow_reader_gets_every_byte_and_nobody_waits_for_it(api: Api, worker: PlayedWorker) -> None:
    path = stored(api, worker)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # some of it from the disk
    with asked(api, worker, start=3) as raw:
        came = raw.recv(1000)
        for _ in range(3):
            assert api.http.get("/healthz").is_success
            came += raw.recv(100_000)
        head, _, body = (came + rest(raw)).partition(b"\r\n\r\n")
    assert b" 206 " in head.partition(b"\r\n")[0]
    assert f"content-length: {len(LARGE) - 3}".encode() in head.lower()
    assert body == LARGE[3:]


@ON_SQLITE
@pytest.mark.parametrize("part_bytes", [2**23, len(LARGE)], ids=["in parts", "in the last part"])
def test_a_client_that_goes_is_let_go_of(
    api: Api,
    worker: PlayedWorker,
    part_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ranged_response, "_PART_BYTES", part_bytes)
    path = stored(api, worker)
    before = connections(api)
    gone = [asked(api, worker) for _ in range(5)]
    wait_for(lambda: open_files(path) == 5, what="five downloads")
    for raw in gone[:2]:
        raw.recv(1000)
    for raw in gone:
        raw.close()
    wait_for(lambda: open_files(path) == 0, what="the end of the downloads")
    wait_for(lambda: connections(api) == before, what="their sockets' end")
    assert "Exception in ASGI application" not in caplog.text


@ON_SQLITE
def test_a_file_that_becomes_shorter_ends_the_answer_too_early(api: Api, worker: PlayedWorker) -> None:
    path = stored(api, worker)
    with asked(api, worker) as raw:
        raw.recv(1000)
        wait_for(lambda: open_files(path) == 1, what="the download")
        os.truncate(path, 1000)
        assert len(rest(raw)) < len(LARGE) - 1000
    assert api.http.get("/healthz").is_success


@ON_SQLITE
def test_connections_are_used_again_and_the_bytes_are_counted(api: Api, worker: PlayedWorker) -> None:
    def counted() -> float:
        (line,) = [
            found
            for found in api.http.get("/metrics").text.splitlines()
            if found.startswith("epochd_http_response_bytes_total")
        ]
        return float(line.split()[-1])

    before = counted()
    with httpx.Client(base_url=api.http.base_url, headers=api.headers, trust_env=False) as client:
        for _ in range(3):
            answer = client.get(f"/jobs/{worker.job_id}/checkpoints/1/files/model.safetensors")
            assert answer.content == LARGE
            assert client.get("/healthz").json() == {"status": "ok"}
    assert 3 * len(LARGE) < counted() - before < 3 * len(LARGE) + 100_000


def test_a_server_without_the_extension_gets_the_bytes_themselves(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    answer = RangedResponse(
        [b"before", FileSegment(tmp_path / "file", len(LARGE)), b"behind"],
        sha256="x",
        media_type="application/octet-stream",
        filename="file",
        immutable=True,
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "headers": [(b"range", b"bytes=2-")], "asgi": {"spec_version": "2.4"}}
    asyncio.run(answer(scope, receive, send))
    assert b"".join(message.get("body", b"") for message in sent) == (b"before" + LARGE + b"behind")[2:]
