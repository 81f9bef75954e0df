"""Every format over HTTP: told by what it holds, kept in the form that the trainer reads, and reported on."""

import gzip
import json
import pickle
import socket
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core import datasets
from core.dataset_files import Row, read_rows
from core.models import Dataset
from tests.app.served import ON_SQLITE, Api

pytestmark = ON_SQLITE

TEXT = "你好\n\n世界\n"


def _parquet(path: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["你好", "", "世界"], "id": [1, 2, 3]}), path)
    return path.read_bytes()


def _rows(api: Api, dataset: dict[str, Any]) -> list[Row]:
    """Return what a trainer will read."""
    with api.work.reading() as session:
        file = datasets.data_file(session.get_one(Dataset, dataset["id"]), api.store)
    assert file.known
    rows = list(read_rows(file))
    assert len(rows) == file.known.rows == dataset["rows"]
    return rows


def test_every_format_is_taken_and_can_be_trained_on(api: Api, tmp_path: Path) -> None:
    texts, lists = [Row(text="你好"), Row(text="世界")], [[1, 2], [70_000, 3]]
    files: list[tuple[str, bytes, dict[str, str], str, list[Row]]] = [
        ("a.txt", TEXT.encode(), {}, "txt", texts),
        ("a.txt.gz", gzip.compress(TEXT.encode(), mtime=0), {}, "txt.gz", texts),
        ("b.txt", TEXT.encode("gb18030"), {"encoding": "GB18030"}, "txt", texts),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0), {}, "jsonl.gz", [Row(text="a")]),
        ("a.parquet", _parquet(tmp_path / "made"), {}, "parquet", texts),
        ("train.pkl", pickle.dumps(lists), {}, "pkl", [Row(input_ids=ids, labels=ids) for ids in lists]),
    ]
    for name, content, params, format_, rows in files:
        made = api.http.post("/datasets", params={"filename": name, **params}, content=content)
        assert made.status_code == 201, made.text
        dataset = made.json()
        assert (dataset["format"], dataset["bytes"]) == (format_, len(content))
        assert dataset["encoding"] == params.get("encoding", "utf-8").lower()
        assert _rows(api, dataset) == rows
        again = api.http.post("/datasets", params=params, files={"file": (name, content)})
        assert (again.status_code, again.json()) == (200, dataset)
        job = api.http.post("/jobs", params={"dry_run": True}, json={"dataset": dataset["id"]})
        assert job.status_code == 200, (name, job.text)
        assert job.json()["rows"] == len(rows) - (len(rows) > 1)


def test_the_same_bytes_in_another_encoding_are_another_dataset(api: Api) -> None:
    content = "déjà vu".encode("latin-1")
    made = [
        api.http.post("/datasets", params={"filename": "a.txt", "encoding": encoding}, content=content).json()
        for encoding in ("latin-1", "cp1251", "iso-8859-1")
    ]
    assert made[0] == made[2] != made[1]
    assert [_rows(api, dataset)[0].text for dataset in made] == [
        content.decode(name) for name in ("latin-1", "cp1251", "latin-1")
    ]


def test_what_does_not_fit_the_file_is_a_422(api: Api) -> None:
    for params, word in (
        ({"filename": "a.txt", "encoding": "klingon"}, "gb18030, big5 or cp1252"),
        ({"filename": "a.txt", "encoding": "\x00"}, "no encoding"),
        ({"filename": "a.txt", "encoding": "x" * 50}, ""),
        ({"filename": "a.pkl", "encoding": "gb18030"}, "leave it out"),
        ({"filename": "a.pkl", "split": "line"}, "leave it out"),
    ):
        answer = api.http.post("/datasets", params=params, content=pickle.dumps([[1]]) if "pkl" in str(params) else "a")
        assert answer.status_code == 422
        assert word in answer.text


def test_the_report_has_numbers_and_all_that_was_found(api: Api) -> None:
    lines = ['{"text": "abc"}', '{"text": "abc"}', '{"text": "12345"}', *['{"text": " "}'] * 25]
    dataset = api.http.post("/datasets?filename=a.jsonl", content="\n".join(lines)).json()
    report = dataset["report"]
    assert len(report.pop("warnings")) == 20
    assert report == {
        "skipped_rows": 25,
        "duplicate_rows": 1,
        "duplicates_are_estimated": False,
        "characters": 11,
        "tokens": None,
        "lengths": [{"from": 2, "to": 3, "rows": 2}, {"from": 4, "to": 7, "rows": 1}],
    }
    found = api.http.get(dataset["report_url"])
    assert found.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in found.text.splitlines()] == [
        {"line": line, "message": "empty, will be skipped"} for line in range(4, 29)
    ]
    sound = api.http.get(f"/datasets/{api.dataset()}/report")
    assert (sound.status_code, sound.text) == (200, "")
    assert api.http.get(f"/datasets/{dataset['id']}/report", headers=api.other_key("else")).status_code == 404


def test_a_dataset_that_an_earlier_version_looked_through_is_shown(api: Api) -> None:
    dataset_id = api.dataset()
    with api.work.begin() as session:
        row = session.get_one(Dataset, dataset_id)
        row.report = {"warnings": [], "skipped_rows": 3, "largest_id": None}
        session.add(row)
    shown = api.http.get(f"/datasets/{dataset_id}").json()["report"]
    assert (shown["skipped_rows"], shown["characters"], shown["lengths"]) == (3, None, [])


def test_put_is_what_curl_sends_for_a_file(api: Api) -> None:
    assert api.http.put("/datasets?filename=a.txt", content=b"some text").status_code == 201
    assert api.http.put("/datasets", content=b"some text").status_code == 422


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_asks_first_is_told_to_go_on(api: Api, chunked: bool) -> None:
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 9"
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as raw:
        head = f"POST /datasets?filename=a.txt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.key}\r\n"
        raw.sendall(f"{head}Expect: 100-continue\r\nConnection: close\r\n{length}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 100 ")
        raw.sendall(b"9\r\nsome text\r\n0\r\n\r\n" if chunked else b"some text")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert b"HTTP/1.1 201" in answer
    assert b'"bytes":9' in answer
