"""Clients that take their time: half a head, an endless one, a body that trickles. None is waited for for long."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from time import sleep

import httpx
import pytest

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving

pytestmark = ON_SQLITE

HEAD = "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"


@pytest.fixture
def hasty(settings: Settings) -> Iterator[Api]:
    """An API that waits for nobody, and answers two at once."""
    with serving(settings.model_copy(update={"slow_client_seconds": 0.3, "max_requests_at_once": 2})) as served:
        yield served


def all_that_comes(raw: socket.socket) -> bytes:
    """Return what the server sends until it closes."""
    came = b""
    with suppress(ConnectionResetError):
        while more := raw.recv(65536):
            came += more
    return came


def dripping(raw: socket.socket) -> threading.Event:
    """Send a byte every now and then, until the flag is set or nobody takes them any more."""
    enough = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not enough.wait(0.02):
                raw.sendall(b"x")

    threading.Thread(target=drip, daemon=True).start()
    return enough


def test_half_a_head_is_not_waited_for(hasty: Api) -> None:
    whole = HEAD.format(method="GET", path="/healthz", key="x") + "\r\n"
    for sent, answers in (("", 0), ("GET / HT", 0), (whole[:-2], 0), (whole + whole[:-2], 1)):
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=10) as raw:
            raw.sendall(sent.encode())
            enough = dripping(raw) if sent == "" else threading.Event()
            assert all_that_comes(raw).count(b"HTTP/1.1 200") == answers
            enough.set()


def test_an_endless_head_is_cut_off(settings: Settings) -> None:
    with serving(settings) as served, socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n")
        more = b"X-More: " + b"x" * 60_000 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|Broken"):  # far sooner than a slow one
            raw.sendall(more * 1000)


def test_a_large_body_that_is_answered_early_is_taken_to_its_end(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as raw:
        raw.sendall((HEAD.format(method="POST", path="/jobs", key="x") + f"Content-Length: {2**19}\r\n\r\n").encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 401")
        raw.sendall(bytes(2**19) + (HEAD.format(method="GET", path="/healthz", key="x") + "\r\n").encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/jobs", "/datasets?filename=a.txt"])
def test_a_body_that_trickles_is_not_waited_for(hasty: Api, path: str) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=10) as raw:
        head = HEAD.format(method="POST", path=path, key=hasty.key)
        raw.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 9000\r\n\r\n".encode())
        enough = dripping(raw)
        answer = all_that_comes(raw).decode()
        enough.set()
    assert answer.startswith("HTTP/1.1 408")
    assert "EPOCHD_SLOW_CLIENT_SECONDS" in answer


def test_a_body_that_keeps_coming_is_waited_for(hasty: Api) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(12):
            yield b"word " * 4000
            sleep(0.05)  # 0.6 s in all: twice the patience

    assert hasty.http.post("/datasets?filename=a.txt", content=parts()).status_code == 201


def test_a_stream_is_silent_for_as_long_as_it_likes(hasty: Api) -> None:
    job = hasty.job()["id"]
    assert hasty.http.get(f"/jobs/{job}/events?after=0-1&wait=0.7").json()["events"] == []


def test_so_many_are_answered_at_once(hasty: Api) -> None:
    job = hasty.job()["id"]
    streams = [
        httpx.stream("GET", f"{hasty.http.base_url}/jobs/{job}/events", headers=hasty.headers | headers)
        for headers in ({"Accept": "text/event-stream"},) * 2
    ]
    with streams[0], streams[1]:
        refused = hasty.http.get("/jobs")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "EPOCHD_MAX_REQUESTS_AT_ONCE" in refused.json()["detail"]
        assert hasty.http.get("/healthz").status_code == 200
