"""Files that are no good: each a 422 that says where, with nothing stored, nothing run, and the API alive."""

import gzip
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core import text_lines
from core.settings import Settings
from tests.app.served import ON_SQLITE, Api, serving

pytestmark = ON_SQLITE

LIMIT = 2**20


@pytest.fixture
def small(settings: Settings) -> Iterator[Api]:
    """An API that takes a mebibyte."""
    with serving(settings.model_copy(update={"max_upload_bytes": LIMIT})) as served:
        yield served


class _Runs:
    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call[0], self._call[1:]


def _parquet(path: Path, texts: list[str]) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    return path.read_bytes()


def test_no_bad_file_gets_in_or_does_harm(small: Api, settings: Settings, tmp_path: Path) -> None:
    marker, made = tmp_path / "it-ran", tmp_path / "made"
    sound = _parquet(made, [f"row {number}" for number in range(100)])
    files: dict[str, tuple[str, bytes, list[list[Any]]]] = {
        "a gzip bomb": ("a.jsonl.gz", gzip.compress(b" " * (20 * LIMIT)), []),
        "a Parquet bomb": ("a.parquet", _parquet(made, ["the same"] * (LIMIT // 4)), []),
        "a pickle that calls": ("a.pkl", pickle.dumps([_Runs(os.system, f"touch {marker}")]), []),
        "the same by another name": ("a.txt", pickle.dumps([_Runs(os.system, f"touch {marker}")]), []),
        "a forged Parquet": ("a.parquet", sound[:50] + b"\xff" * 50 + sound[100:], [["row", 1]]),
        "a cut Parquet": ("a.parquet", sound[:-20], [["row", 1]]),
        "a cut gzip": ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 3)[:-8], [["line", 4]]),
        "NUL bytes": ("a.jsonl", b'{"text": "a"}\n{"text": "\x00"}\n', [["line", 2]]),
        "mixed encodings": ("a.txt", "一\n".encode() + "二\n".encode("gb18030"), [["line", 2]]),
        "a kind that changes": ("a.jsonl", b'{"text": "a"}\n' * 9 + b'{"input_ids": [1]}\n', [["line", 10]]),
        "a format that changes": ("a.jsonl", b'{"text": "a"}\n' * 9 + b"PAR1" + sound, [["line", 10]]),
    }
    for name, (filename, content, places) in files.items():
        answer = small.http.post("/datasets", params={"filename": filename}, content=content)
        assert answer.status_code == 422, name
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["loc"] for error in answer.json()["errors"]] == places, name
        assert len(answer.json()["detail"]) > 20, name
    assert not marker.exists()
    assert [path for path in (settings.data_dir / "store").rglob("*") if path.is_file()] == []
    assert small.http.get("/datasets").json()["data"] == []
    assert small.http.get("/healthz").status_code == 200


def test_a_line_that_is_too_long_is_refused(small: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_ROW_BYTES", 1000)
    for filename in ("a.txt", "a.jsonl"):
        answer = small.http.post("/datasets", params={"filename": filename}, content=b"\n" + b"x" * 1001)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["line", 2]
