"""Checkpoints over HTTP: whole, in ranges, as an archive; exact, and nothing but what is listed."""

import io
import os
import shutil
import subprocess
import tarfile
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from core import checkpoints
from tests.app.played_worker import PlayedWorker
from tests.app.served import ON_SQLITE, Api
from tests.services import missing

FILES = {"config.json": b'{"a": 1}', "empty.txt": b"", "model.safetensors": os.urandom(3 * 2**20 + 17)}
ALL_OF_IT = FILES["model.safetensors"]


@pytest.fixture
def worker(api: Api) -> PlayedWorker:
    """A worker that has published one checkpoint, of epoch 1."""
    worker = api.worker()
    worker.checkpoint(api.store, FILES, epoch=1, step=10)
    return worker


def listed(api: Api, worker: PlayedWorker, epoch: int = 1) -> dict[str, Any]:
    """Return a checkpoint of the list."""
    rows = api.http.get(f"/jobs/{worker.job_id}/checkpoints").json()["data"]
    found: dict[str, Any] = next(row for row in rows if row["epoch"] == epoch)
    return found


def file_url(api: Api, worker: PlayedWorker, name: str) -> str:
    """Return the address of a file of the list."""
    urls = {file["name"]: file["url"] for file in listed(api, worker)["files"]}
    url: str = urls[name]
    return url


@ON_SQLITE
def test_every_listed_file_comes_back_with_its_hash(api: Api, worker: PlayedWorker) -> None:
    row = listed(api, worker)
    assert (row["step"], row["best"]) == (10, True)
    assert row["bytes"] == sum(map(len, FILES.values()))
    assert row["metrics"] == {"loss": 2.0, "accuracy": 0.5, "validation_loss": None}
    assert {file["name"] for file in row["files"]} == FILES.keys()
    for file in row["files"]:
        answer = api.http.get(file["url"])
        assert answer.content == FILES[file["name"]]
        assert answer.headers["content-length"] == str(file["bytes"])
        assert answer.headers["etag"] == f'"{file["sha256"]}"' == f'"{sha256(answer.content).hexdigest()}"'
        assert answer.headers["accept-ranges"] == "bytes"
        assert "immutable" in answer.headers["cache-control"]
        assert "content-encoding" not in answer.headers
        head = api.http.head(file["url"])
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "etag", "accept-ranges", "content-type", "cache-control"):
            assert head.headers[name] == answer.headers[name]


SIZE = len(ALL_OF_IT)
RANGES: dict[str, tuple[int, int] | None] = {
    "bytes=0-0": (0, 1),
    "bytes=0-": (0, SIZE),
    "bytes=5-9": (5, 10),
    f"bytes={SIZE - 1}-": (SIZE - 1, SIZE),
    "bytes=1048570-1048590": (1048570, 1048591),
    f"bytes=7-{SIZE + 100}": (7, SIZE),
    "bytes=-10": (SIZE - 10, SIZE),
    f"bytes=-{SIZE + 1}": (0, SIZE),
    f"bytes={SIZE}-": None,
    "bytes=-0": None,
    "bytes=99999999999999999999-": None,
}


@ON_SQLITE
def test_one_range_is_served_exactly(api: Api, worker: PlayedWorker) -> None:
    url = file_url(api, worker, "model.safetensors")
    for asked, span in RANGES.items():
        answer = api.http.get(url, headers={"Range": asked})
        if span is None:
            assert answer.status_code == 416, asked
            assert answer.headers["content-range"] == f"bytes */{SIZE}"
            assert answer.headers["content-type"] == "application/problem+json"
            continue
        start, end = span
        assert answer.status_code == 206, asked
        assert answer.content == ALL_OF_IT[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert answer.headers["content-length"] == str(end - start)
    for asked in (
        "bytes=0-1,4-5",
        "bytes=9-5",
        "bytes=",
        "bytes=-",
        "lines=1-2",
        "0-5",
        "bytes=x-",
        "bytes=" + "9" * 50 + "-",
    ):
        answer = api.http.get(url, headers={"Range": asked})
        assert (answer.status_code, len(answer.content)) == (200, SIZE), asked
    assert api.http.head(url, headers={"Range": "bytes=0-0"}).headers["content-length"] == str(SIZE)
    assert api.http.get(file_url(api, worker, "empty.txt"), headers={"Range": "bytes=0-"}).status_code == 416


@ON_SQLITE
def test_conditions_are_kept(api: Api, worker: PlayedWorker) -> None:
    url = file_url(api, worker, "model.safetensors")
    etag = api.http.head(url).headers["etag"]
    for asked in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        for method in ("GET", "HEAD"):
            answer = api.http.request(method, url, headers={"If-None-Match": asked})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert api.http.head(url, headers={"If-None-Match": '"x"'}).status_code == 200
    first = {"Range": "bytes=0-0"}
    assert api.http.get(url, headers=first | {"If-Range": etag}).status_code == 206
    for other in ('"x"', f"W/{etag}", "Tue, 24 Nov 2026 05:06:57 GMT"):
        assert api.http.get(url, headers=first | {"If-Range": other}).status_code == 200


@ON_SQLITE
def test_only_listed_names_reach_the_disk(api: Api, worker: PlayedWorker) -> None:
    with api.work.reading() as session:
        folder = api.store.fetch(checkpoints.store_key(checkpoints.find(session, worker.job_id, 1))) / "model"
    (folder / "secret").write_text("not listed")
    (folder / "link").symlink_to("/etc/passwd")
    base = f"/jobs/{worker.job_id}/checkpoints/1/files"
    tricks = ["secret", "link", "..", "../state/x", "..%2fmodel%2fconfig.json", "%2e%2e%2f%2e%2e", "config.json%00",
              "config.json/", "./config.json", "%2fetc%2fpasswd", "CONFIG.JSON", "%5c..%5cx", ""]  # fmt: skip
    for trick in tricks:
        raw = HTTPConnection("127.0.0.1", api.port)  # httpx would tidy the path up
        raw.request("GET", f"{base}/{trick}", headers=api.headers)
        assert raw.getresponse().status == 404, trick
        raw.close()
    assert api.http.get(f"{base}/config.json").status_code == 200


@ON_SQLITE
def test_the_archive_is_a_tar_of_exact_length_that_checks_itself(
    api: Api, worker: PlayedWorker, tmp_path: Path
) -> None:
    url = listed(api, worker)["archive_url"]
    answer = api.http.get(url)
    assert answer.headers["content-type"] == "application/x-tar"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert api.http.get(url).content == answer.content
    folder = f"{worker.job_id}-epoch-1"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [
            folder,
            *(f"{folder}/{name}" for name in FILES),
            f"{folder}/manifest.sha256",
        ]
        assert {member.mode for member in members if member.isfile()} == {0o644}
        assert len({member.mtime for member in members}) == 1
    (tmp_path / "a.tar").write_bytes(answer.content)
    subprocess.run(["tar", "-xf", "a.tar"], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "-c", "--strict", "manifest.sha256"], cwd=tmp_path / folder, check=True)
    manifest = api.http.get(listed(api, worker)["manifest_url"])
    assert manifest.headers["content-type"].startswith("text/plain")
    assert manifest.text == (tmp_path / folder / "manifest.sha256").read_text()
    for start, end in ((0, 10), (500, 1600), (1024, 1025), (len(answer.content) - 2000, len(answer.content))):
        part = api.http.get(url, headers={"Range": f"bytes={start}-{end - 1}"})
        assert (part.status_code, part.content) == (206, answer.content[start:end])


@ON_SQLITE
def test_an_interrupted_download_goes_on_with_curl(api: Api, worker: PlayedWorker, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    url = f"http://127.0.0.1:{api.port}{listed(api, worker)['archive_url']}"
    whole = api.http.get(url).content
    (tmp_path / "part.tar").write_bytes(whole[:1_000_003])
    command = ["curl", "-sf", "-C", "-", "-o", "part.tar", "-H", f"Authorization: Bearer {api.key}", url]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "part.tar").read_bytes() == whole


def test_latest_best_and_numbers_name_checkpoints(api: Api, worker: PlayedWorker) -> None:
    worker.checkpoint(api.store, {"config.json": b"two"}, epoch=2, step=20, validation_loss=1.0)
    worker.checkpoint(api.store, {"config.json": b"three"}, epoch=3, step=30, validation_loss=1.5)
    base = f"/jobs/{worker.job_id}/checkpoints"
    rows = api.http.get(base).json()["data"]
    assert [(row["epoch"], row["best"]) for row in rows] == [(3, False), (2, True), (1, False)]
    for name, content in (("latest", b"three"), ("best", b"two"), ("2", b"two"), ("1", FILES["config.json"])):
        answer = api.http.get(f"{base}/{name}/files/config.json")
        assert answer.content == content
        assert "immutable" not in answer.headers["cache-control"]  # what the name means can change
    assert api.http.get(f"{base}/4/files/config.json").status_code == 404


def test_a_listed_address_never_means_other_bytes(api: Api, worker: PlayedWorker) -> None:
    """A run that resumes in mid-epoch publishes the epoch again; a download under way must not be mixed of both."""
    first = listed(api, worker)
    worker.checkpoint(api.store, {"config.json": b"other"}, epoch=1, step=11)
    assert api.http.get(f"/jobs/{worker.job_id}/checkpoints/1/files/config.json").content == b"other"
    for file in first["files"]:
        assert api.http.get(file["url"]).content == FILES[file["name"]]
    with api.work.begin() as session:
        kept = checkpoints.retire(session, worker.job_id, keep=0)
    for key in kept:
        api.store.delete(key)
    assert {api.http.get(file["url"]).status_code for file in first["files"]} == {404}


@ON_SQLITE
def test_a_checkpoint_that_is_just_being_removed_is_a_404(api: Api, worker: PlayedWorker) -> None:
    row = listed(api, worker)
    with api.work.reading() as session:
        key = checkpoints.store_key(checkpoints.find(session, worker.job_id, 1))
    model = api.store.fetch(key) / "model" / "model.safetensors"
    model.unlink()
    assert api.http.get(row["archive_url"]).status_code == 404
    model.write_bytes(b"short")
    assert api.http.get(row["archive_url"]).status_code == 500
    api.store.delete(key)
    for url in (row["archive_url"], row["files"][0]["url"]):
        assert api.http.get(url).status_code == 404
