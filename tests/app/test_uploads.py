"""Uploads in parts: what has come is kept, what is complete is a dataset, and what is no good leaves nothing."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving
from tests.services import wait_for

CONTENT = b"".join(b'{"text": "row %d"}\n' % number for number in range(1000))


@pytest.fixture
def small(settings: Settings) -> Iterator[Api]:
    """An API with small limits."""
    limits = {"max_upload_bytes": 50_000, "max_open_uploads": 2}
    with serving(settings.model_copy(update=limits)) as served:
        yield served


def _announced(content: bytes = CONTENT, **changes: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"filename": "a.jsonl", "bytes": len(content), "sha256": sha256} | changes


def _begin(api: Api, content: bytes = CONTENT, **changes: Any) -> str:
    """Announce a file and return the upload's address."""
    answer = api.http.post("/uploads", json=_announced(content, **changes))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/uploads/{answer.json()['id']}"
    return answer.headers["location"]


def _send(api: Api, address: str, offset: int, content: bytes) -> httpx.Response:
    return api.http.patch(address, content=content, headers={"Upload-Offset": str(offset)})


def _files(settings: Settings, folder: str = "") -> list[Path]:
    return [path for path in (settings.data_dir / "store" / folder).rglob("*") if path.is_file()]


def test_a_file_in_parts_becomes_the_dataset_of_the_whole(api: Api, settings: Settings) -> None:
    address = _begin(api)
    for start, end in ((0, 7), (7, 7), (7, 10_000), (10_000, len(CONTENT))):
        sent = _send(api, address, start, CONTENT[start:end])
        assert (sent.status_code, sent.headers["upload-offset"]) == (204, str(end))
        head = api.http.head(address)
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == (str(end), str(len(CONTENT)))
    assert api.http.get(address).json()["offset"] == len(CONTENT)
    made = api.http.post(f"{address}/complete")
    assert made.status_code == 201
    assert made.json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert made.json()["rows"] == 1000
    asked_again = api.http.post(f"{address}/complete")
    assert (asked_again.status_code, asked_again.json()) == (200, made.json())
    assert api.http.get(address).json()["dataset"] == made.json()["id"]
    assert _files(settings, "uploads") == []
    assert [path.name for path in _files(settings)] == [made.json()["id"]]
    assert _send(api, address, len(CONTENT), b"").status_code == 409
    whole = api.http.post("/datasets?filename=a.jsonl", content=CONTENT)
    assert (whole.status_code, whole.json()) == (200, made.json())


@ON_SQLITE
def test_who_announces_the_same_again_goes_on_with_it(api: Api) -> None:
    address = _begin(api)
    _send(api, address, 0, CONTENT[:100])
    again = api.http.post("/uploads", json=_announced())
    assert (again.status_code, again.headers["location"], again.json()["offset"]) == (200, address, 100)
    assert _begin(api, split="line", filename="a.txt") != address
    other = api.http.post("/uploads", json=_announced(), headers=api.other_key("else"))
    assert (other.status_code, other.json()["offset"]) == (201, 0)


@ON_SQLITE
def test_what_a_broken_connection_has_sent_is_kept(api: Api, settings: Settings) -> None:
    content = CONTENT * 100
    address = _begin(api, content)
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as raw:
        head = f"PATCH {address} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.key}\r\n"
        head += f"Upload-Offset: 0\r\nContent-Length: {len(content)}\r\n\r\n"
        raw.sendall(head.encode() + content[:1_500_000])
        wait_for(lambda: _files(settings, "uploads")[0].stat().st_size, what="the upload's beginning")

    def there() -> int:
        return int(api.http.head(address).headers["upload-offset"])

    # The server writes a mebibyte at a time, and the rest once it notices that nothing more comes.
    offset = wait_for(lambda: there() if there() > 2**20 + 2**18 else 0, what="what was sent")
    assert offset <= 1_500_000
    assert _send(api, address, offset, content[offset:]).status_code == 204
    made = api.http.post(f"{address}/complete")
    assert (made.status_code, made.json()["rows"]) == (201, 100_000)


@ON_SQLITE
def test_bytes_that_do_not_follow_are_a_409(api: Api) -> None:
    address = _begin(api)
    _send(api, address, 0, CONTENT[:100])
    for offset in (0, 99, 101):
        answer = _send(api, address, offset, CONTENT[offset:200])
        assert answer.status_code == 409
        assert "100 bytes" in answer.json()["detail"]
    early = api.http.post(f"{address}/complete")
    assert (early.status_code, f"100 of {len(CONTENT)} bytes" in early.json()["detail"]) == (409, True)
    assert _send(api, address, 100, CONTENT[100:] + b"more").status_code == 422
    for headers in ({}, {"Upload-Offset": "x"}, {"Upload-Offset": "-1"}, {"Upload-Offset": str(2**63)}):
        assert api.http.patch(address, content=b"x", headers=headers).status_code == 422


@ON_SQLITE
def test_what_is_no_good_leaves_nothing(api: Api, settings: Settings) -> None:
    bad = b'{"text": "a"}\nnope\n'
    for content, announced, word in (
        (bad, bad, "line 2"),
        (b"", b"", "no usable row"),
        (b"x" * len(CONTENT), CONTENT, "the file changed meanwhile"),
    ):
        address = _begin(api, announced)
        _send(api, address, 0, content)
        answer = api.http.post(f"{address}/complete")
        assert answer.status_code == 422
        assert word in answer.text
        assert api.http.get(address).status_code == 404
    address = _begin(api)
    _send(api, address, 0, CONTENT[:100])
    assert api.http.delete(address).status_code == 204
    assert api.http.delete(address).status_code == 404
    assert _files(settings) == []
    assert api.http.get("/datasets").json()["data"] == []


@ON_SQLITE
def test_size_and_number_are_limited(small: Api) -> None:
    over = small.http.post("/uploads", json=_announced(bytes=50_001))
    assert (over.status_code, "50,000 bytes" in over.json()["detail"]) == (413, True)
    address = _begin(small)
    _begin(small, filename="b.jsonl")
    third = small.http.post("/uploads", json=_announced(filename="c.jsonl"))
    assert (third.status_code, f"DELETE {address}" in third.json()["detail"]) == (409, True)
    _send(small, address, 0, CONTENT)
    assert small.http.post(f"{address}/complete").status_code == 201
    _begin(small, filename="c.jsonl")
    assert small.http.patch(address, content=b"x" * 50_001, headers={"Upload-Offset": "0"}).status_code == 413


def test_a_bad_announcement_is_a_422(api: Api) -> None:
    for change in (
        {"filename": "a.exe"},
        {"filename": ""},
        {"filename": "a\x00.txt"},
        {"bytes": -1},
        {"bytes": "1"},
        {"bytes": 2**63},
        {"bytes": True},
        {"sha256": "x" * 64},
        {"sha256": "A" * 64},
        {"split": "word"},
        {"encoding": "klingon"},
        {"encoding": "\x00"},
        {"unknown": 1},
    ):
        assert api.http.post("/uploads", json=_announced() | change).status_code == 422, change
    for body in (b"", b"[]", b"{", b'{"bytes": NaN}', json.dumps(_announced(filename="\ud800.txt")).encode()):
        answer = api.http.post("/uploads", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422, body
    assert api.http.post("/uploads", content=b"{}").status_code == 415


def test_an_upload_of_someone_else_is_none(api: Api) -> None:
    address, stranger = _begin(api), api.other_key("else")
    for id_ in (address.removeprefix("/uploads/"), "up_none", "%00"):
        for method, path in (("GET", ""), ("HEAD", ""), ("PATCH", ""), ("POST", "/complete"), ("DELETE", "")):
            headers = {**stranger, "Upload-Offset": "0"}
            assert api.http.request(method, f"/uploads/{id_}{path}", headers=headers).status_code == 404
    assert api.http.get(address).json()["offset"] == 0
