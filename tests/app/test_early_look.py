"""A file that is looked through while it comes in: refused as soon as that is known, and otherwise as any other."""

import gzip
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api
from tests.services import wait_for

pytestmark = ON_SQLITE

# Several writes of the API's, and of more than is looked through without a process.
CONTENT = b"".join(b'{"text": "row %d, %s"}\n' % (number, b"x" * 1000) for number in range(5000))
HALF = len(CONTENT) // 2


@contextmanager
def _sending(
    api: Api, content: bytes, name: str = "a.jsonl", length: int = len(CONTENT), connection: str = "close"
) -> Iterator[socket.socket]:
    """A connection over which the beginning of a file was sent."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as raw:
        head = f"POST /datasets?filename={name} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.key}\r\n"
        raw.sendall(f"{head}Connection: {connection}\r\nContent-Length: {length}\r\n\r\n".encode() + content)
        yield raw


def _looks() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "core.inspection:inspect_upload" in one.cmdline()]


def _files(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "store").rglob("*") if path.is_file()]


def _refused(settings: Settings) -> list[Path]:
    return [path for path in _files(settings) if path.parent.parent.name == "refusals"]


def _answer(raw: socket.socket) -> bytes:
    return b"".join(iter(lambda: raw.recv(2**16), b""))


def test_a_bad_file_is_refused_before_all_of_it_has_come(api: Api, settings: Settings) -> None:
    with _sending(api, CONTENT[:HALF] + b"nope\n" * 2**20, length=2**30, connection="keep-alive") as raw:
        wait_for(lambda: _refused(settings), what="the end of the look")
        while not select.select([raw], [], [], 0)[0]:
            raw.sendall(b"nope\n" * 2**18)
        answer = raw.recv(2**16)
        while b"report_url" not in answer:
            answer += raw.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b'["line", 2501]' in answer
    wait_for(lambda: _files(settings) == _refused(settings), what="the torso's removal")
    assert api.http.get("/datasets").json()["data"] == []


def test_a_file_that_is_compressed_is_looked_through_as_it_comes(api: Api) -> None:
    packed = gzip.compress(CONTENT, 0, mtime=0)
    with _sending(api, packed[:HALF], "a.jsonl.gz", len(packed)) as raw:
        wait_for(_looks, what="the look")
        raw.sendall(packed[HALF:])
        assert _answer(raw).startswith(b"HTTP/1.1 201 ")
    dataset = api.http.get("/datasets").json()["data"][0]
    assert (dataset["rows"], dataset["bytes"]) == (5000, len(packed))
    again = api.http.post("/datasets?filename=a.jsonl.gz", content=packed)
    assert (again.status_code, again.json()) == (200, dataset)


def test_a_fault_at_the_very_end_is_found(api: Api, settings: Settings) -> None:
    with _sending(api, CONTENT[:HALF], length=len(CONTENT) + 4) as raw:
        wait_for(_looks, what="the look")
        raw.sendall(CONTENT[HALF:] + b"nope")
        assert b'["line", 5001]' in _answer(raw)
    wait_for(lambda: not _files(settings), what="the torso's removal")


def test_who_goes_away_leaves_neither_a_file_nor_a_process(api: Api, settings: Settings) -> None:
    with _sending(api, CONTENT[:HALF]):
        wait_for(_looks, what="the look")
    wait_for(lambda: not _files(settings), what="the torso's removal")
    wait_for(lambda: not _looks(), what="the end of the look")


def test_clients_that_are_slow_keep_nobody_waiting(api: Api) -> None:
    with _sending(api, CONTENT[:HALF]) as one, _sending(api, CONTENT[:HALF]) as other:
        wait_for(lambda: len(_looks()) == 2, what="two looks")
        made = api.http.post("/datasets?filename=b.jsonl", content=b'{"text": "first"}\n' + CONTENT)
        assert (made.status_code, made.json()["rows"]) == (201, 5001)
        for raw in (one, other):
            raw.sendall(CONTENT[HALF:])
        assert {_answer(raw)[:13] for raw in (one, other)} <= {b"HTTP/1.1 201 ", b"HTTP/1.1 200 "}
    assert len(api.http.get("/datasets").json()["data"]) == 2


def test_a_form_is_looked_through_as_it_comes(api: Api) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    body = head + CONTENT + b"\r\n--b--\r\n"

    def parts() -> Iterator[bytes]:
        yield body[:HALF]
        wait_for(_looks, what="the look")
        yield body[HALF:]

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(len(body))}
    made = api.http.post("/datasets", content=parts(), headers=headers)
    assert (made.status_code, made.json()["rows"], made.json()["bytes"]) == (201, 5000, len(CONTENT))
