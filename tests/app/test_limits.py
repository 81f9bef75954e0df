"""Sizes and hosts: what is too large is refused as soon as that is known, what is meant for elsewhere at once."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving
from tests.services import wait_for

pytestmark = ON_SQLITE


@pytest.fixture
def small(settings: Settings) -> Iterator[Api]:
    """An API with small limits."""
    with serving(settings.model_copy(update={"max_body_bytes": 1000, "max_upload_bytes": 5000})) as served:
        yield served


def stored(settings: Settings) -> list[Path]:
    """Return every file in the store."""
    return [path for path in (settings.data_dir / "store").rglob("*") if path.is_file()]


def test_a_body_over_the_limit_is_a_413(small: Api, settings: Settings) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        for _ in range(size // 100):
            yield b"x" * 100

    json = {"content-type": "application/json"}
    for content in (b"x" * 1001, chunks(1100)):
        answer = small.http.post("/jobs", content=content, headers=json)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "1,000 bytes" in answer.json()["detail"]
    for upload in (b"x" * 5001, chunks(5100)):
        answer = small.http.post("/datasets?filename=a.txt", content=upload)
        assert answer.status_code == 413
        assert "5,000 bytes" in answer.json()["detail"]
    assert small.http.post("/datasets", files={"file": ("a.txt", b"x" * 5000)}).status_code == 413
    assert stored(settings) == []
    assert small.http.post("/datasets?filename=a.txt", content=b"x" * 5000).status_code == 201
    assert small.http.post("/jobs", content=b"x" * 1000, headers=json).status_code == 422


def test_nobody_without_a_key_makes_the_server_read_a_body(small: Api) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as raw:
        head = "POST /datasets?filename=a.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n"
        raw.sendall(head.encode())  # and not a byte of the body
        assert raw.recv(100).startswith(b"HTTP/1.1 401")


def test_an_upload_cut_off_leaves_nothing(small: Api, settings: Settings) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as raw:
        head = (
            "POST /datasets?filename=a.txt HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {small.key}\r\nContent-Length: 4000\r\n\r\nsome text"
        )
        raw.sendall(head.encode())
        wait_for(lambda: stored(settings), what="the upload's beginning")
    wait_for(lambda: not stored(settings), what="the torso's removal")
    assert small.http.get("/datasets").json()["data"] == []


HOSTS = {
    "localhost": True,
    "LOCALHOST:1": True,
    "127.0.0.1": True,
    "127.0.0.1:8000": True,
    "[::1]": True,
    "[::1]:8000": True,
    "example.com": False,
    "example.com:8000": False,
    "localhost.example.com": False,
    "localhost:8000@example.com": False,
    "127.0.0.1:x": False,
    "[::1": False,
    "": False,
    ":8000": False,
}


def test_only_its_own_hosts_are_answered(api: Api) -> None:
    for host, own in HOSTS.items():
        answer = api.http.get("/healthz", headers={"Host": host})
        assert answer.status_code == (200 if own else 400), host
        if not own:
            assert answer.headers["content-type"] == "application/problem+json"
            assert "EPOCHD_ALLOWED_HOSTS" in answer.json()["detail"]
            assert answer.headers["x-request-id"]


def test_a_websocket_for_another_host_is_refused(api: Api) -> None:
    path = api.job()["links"]["stream"]
    with (
        socket.create_connection(("127.0.0.1", api.port)) as raw,
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://evil.example{path}", sock=raw, additional_headers=api.headers, proxy=None),
    ):
        pass
    assert refused.value.response.status_code == 400


def test_the_host_that_the_server_binds_is_its_own(settings: Settings) -> None:
    with serving(settings.model_copy(update={"host": "box.internal", "allowed_hosts": ["localhost"]})) as served:
        assert served.http.get("/healthz", headers={"Host": "box.internal:9"}).status_code == 200
        assert served.http.get("/healthz", headers={"Host": "127.0.0.1"}).status_code == 400


def test_every_answer_forbids_sniffing_and_has_an_id(api: Api) -> None:
    answers = [api.http.get(path) for path in ("/healthz", "/jobs", "/nope", "/docs", "/openapi.json", "/jobs/x")]
    answers.append(api.http.put("/jobs"))
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_a_failure_inside_tells_nothing_of_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("the secret of the house")

    monkeypatch.setattr("core.job_queries.page", broken)
    answer = api.http.get("/jobs")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "the secret of the house" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text
