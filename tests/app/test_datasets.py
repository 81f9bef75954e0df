"""Uploads: streamed, hashed, looked through, and kept only where every row can be used."""

import errno
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.settings import Settings
from tests.app.served import ON_SQLITE, Api

GOOD = b'{"text": "one"}\n\n{"text": "  "}\n{"text": "two"}\n'


def stored(settings: Settings) -> list[Path]:
    """Return every file in the store."""
    return [path for path in (settings.data_dir / "store").rglob("*") if path.is_file()]


def test_a_form_and_a_raw_body_give_the_same_dataset(api: Api, settings: Settings) -> None:
    first = api.http.post("/datasets", files={"file": ("corpus.jsonl", GOOD)})
    assert first.status_code == 201
    dataset = first.json()
    assert dataset["id"].startswith("ds_")
    assert dataset["created_at"].endswith("Z")
    assert {key: dataset[key] for key in ("filename", "format", "bytes", "sha256", "rows", "columns")} == {
        "filename": "corpus.jsonl",
        "format": "jsonl",
        "bytes": len(GOOD),
        "sha256": hashlib.sha256(GOOD).hexdigest(),
        "rows": 2,
        "columns": ["text"],
    }
    assert dataset["report"]["skipped_rows"] == 1
    assert dataset["report"]["warnings"][0]["line"] == 3
    again = api.http.post("/datasets?filename=other.jsonl", content=GOOD)
    assert (again.status_code, again.json()) == (200, dataset)
    assert api.http.get(f"/datasets/{dataset['id']}").json() == dataset
    assert api.http.get("/datasets").json() == {"data": [dataset], "next_cursor": None}
    assert {path.parent.name: path.read_bytes() for path in stored(settings)} == {
        "datasets": GOOD,
        "reports": b'{"line": 3, "message": "empty, will be skipped"}\n',
    }


@ON_SQLITE
def test_a_large_upload_arrives_whole(api: Api, settings: Settings) -> None:
    line = json.dumps({"text": "word " * 200}).encode() + b"\n"
    content = line * 5000

    def chunks() -> Iterator[bytes]:
        yield from (content[place : place + 70_001] for place in range(0, len(content), 70_001))

    raw = api.http.post("/datasets?filename=a.jsonl", content=chunks())
    assert raw.json()["sha256"] == hashlib.sha256(content).hexdigest()
    form = api.http.post("/datasets", files={"file": ("a.jsonl", content)})
    assert (form.status_code, form.json()) == (200, raw.json())
    assert raw.json()["rows"] == 5000
    assert len(stored(settings)) == 1


def test_what_a_row_of_a_text_is_can_be_chosen(api: Api) -> None:
    text = b"one\ntwo\n\nthree\n"
    rows = {}
    for split in ("", "&split=blank_line", "&split=line", "&split=file"):
        answer = api.http.post(f"/datasets?filename=a.txt{split}", content=text)
        rows[split] = (answer.status_code, answer.json()["rows"], answer.json()["split"])
    assert rows == {
        "": (201, 2, "blank_line"),
        "&split=blank_line": (200, 2, "blank_line"),
        "&split=line": (201, 3, "line"),
        "&split=file": (201, 1, "file"),
    }


FAULTY = {
    "empty": ("a.jsonl", b"", []),
    "blank": ("a.txt", b"\n \n\n", []),
    "no JSON": ("a.jsonl", b'{"text": "x"}\nnope\n{"text": "y"}\n{"tex": "z"}\n', [2, 4]),
    "binary": ("a.txt", b"text\n\x00\x01", [2]),
    "not UTF-8": ("a.jsonl", b'{"text": "\xff"}\n', [1]),
    "mixed": ("a.jsonl", b'{"text": "x"}\n{"input_ids": [1]}\n', [2]),
    "ids of another type": ("a.jsonl", b'{"input_ids": [1, true, "3"]}\n', [1]),
    "labels of another length": ("a.jsonl", b'{"input_ids": [1, 2], "labels": [1]}\n', [1]),
    "NaN": ("a.jsonl", b'{"text": NaN}\n', [1]),
    "deep": ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", [1]),
}


@ON_SQLITE
def test_an_unusable_file_is_a_422_with_its_lines_and_leaves_nothing(api: Api, settings: Settings) -> None:
    for name, (filename, content, lines) in FAULTY.items():
        for answer in (
            api.http.post("/datasets", params={"filename": filename}, content=content),
            api.http.post("/datasets", files={"file": (filename, content)}),
        ):
            assert answer.status_code == 422, name
            assert [error["loc"] for error in answer.json()["errors"]] == [["line", line] for line in lines], name
    assert api.http.get("/datasets").json()["data"] == []
    assert stored(settings) == []


@ON_SQLITE
def test_all_that_was_found_in_a_refused_file_can_be_downloaded(api: Api, settings: Settings) -> None:
    content = b'{"text": ""}\n' + b"nope\n" * 100
    answer = api.http.post("/datasets?filename=a.jsonl", content=content)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == [["line", line] for line in range(2, 22)]
    url = answer.json()["report_url"]
    assert url in answer.json()["detail"]
    found = [json.loads(line) for line in api.http.get(url).text.splitlines()]
    assert found[0] == {"line": 1, "message": "empty, will be skipped"}
    assert [note["line"] for note in found[1:]] == list(range(2, 102))
    assert api.http.get(url, headers=api.other_key("else")).status_code == 404
    for id_ in ("ref_none", "%2e%2e%2fdatasets", "%00"):
        assert api.http.get(f"/refusals/{id_}").status_code == 404
    assert [path.parent.parent.name for path in stored(settings)] == ["refusals"]


BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}


@ON_SQLITE
def test_a_request_that_is_no_upload_is_a_422(api: Api, settings: Settings) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\ntext'
    forms = [
        b"",
        b"--b--\r\n",
        b"nothing of the kind",
        part,  # cut off
        part + b"\r\n" + part + b"\r\n--b--\r\n",  # two files
        b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',  # no name
        b"--b\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\nx\r\n--b--\r\n",
    ]
    for form in forms:
        assert api.http.post("/datasets", content=form, headers=BOUNDARY).status_code == 422, form[:100]
    for media_type in ("multipart/form-data", "multipart/form-data; boundary=" + "b" * 5000):
        assert api.http.post("/datasets", content=part, headers={"content-type": media_type}).status_code == 422
    for filename in ("", "a", "a.exe", "a.txt.zip", "..", "/", "a\x00.txt", "a\n.txt", "x" * 300 + ".txt"):
        assert api.http.post("/datasets", params={"filename": filename}, content=b"text").status_code == 422, filename
    assert api.http.post("/datasets", content=b"text").status_code == 422
    assert api.http.post("/datasets?filename=a.jsonl&split=line", content=GOOD).status_code == 422
    assert api.http.post("/datasets?filename=a.txt&split=word", content=b"text").status_code == 422
    assert stored(settings) == []


@ON_SQLITE
def test_a_path_in_a_file_name_leads_nowhere(api: Api, settings: Settings) -> None:
    for number, filename in enumerate(("../../etc/a.txt", "/etc/a.txt", "C:\\dir\\a.txt")):
        answer = api.http.post("/datasets", params={"filename": filename}, content=f"text {number}")
        assert answer.json()["filename"] == "a.txt"
    assert {path.parent for path in stored(settings)} == {settings.data_dir / "store" / "datasets"}


def test_the_same_bytes_at_the_same_time_are_one_dataset(api: Api, settings: Settings) -> None:
    def upload(_: int) -> str:
        answer = api.http.post("/datasets?filename=a.jsonl", content=GOOD)
        assert answer.status_code in (200, 201), answer.text
        id_: str = answer.json()["id"]
        return id_

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(upload, range(16)))
    assert len(ids) == 1
    assert sorted(path.parent.name for path in stored(settings)) == ["datasets", "reports"]
    assert {path.name for path in stored(settings)} == ids


@ON_SQLITE
def test_an_upload_that_meets_a_failure_leaves_nothing(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ValueError("nobody foresaw it")

    monkeypatch.setattr("core.inspection.inspect_upload", broken)
    assert api.http.post("/datasets?filename=a.jsonl", content=GOOD).status_code == 500
    assert stored(settings) == []


@ON_SQLITE
def test_a_full_disk_is_a_507(api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.upload._Sink.write", full)
    answer = api.http.post("/datasets?filename=a.jsonl", content=GOOD)
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["detail"]
    assert stored(settings) == []


def test_lists_are_paged_newest_first(api: Api) -> None:
    made = [api.dataset(f'{{"text": "{number}"}}') for number in range(5)]
    seen, cursor = [], None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/datasets", params=params).json()
        seen += [dataset["id"] for dataset in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
