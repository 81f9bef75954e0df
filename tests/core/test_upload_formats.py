"""What an uploaded file is: by its name, and by its content where that says something else."""

import gzip
import pickle
from pathlib import Path

import pytest

from core.errors import InvalidInput
from core.upload_formats import UploadFormat, encoding_of, format_of, recognise

_TEXT = UploadFormat("txt")


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.txt", "txt"),
        ("A.TXT", "txt"),
        ("a.b.jsonl", "jsonl"),
        ("a.NDJSON", "jsonl"),
        ("/x/y.txt", "txt"),
        ("a.txt.gz", "txt.gz"),
        ("a.jsonl.GZ", "jsonl.gz"),
        ("a.parquet", "parquet"),
        ("train.pkl", "pkl"),
        ("train.pickle", "pkl"),
    ],
)
def test_the_format_follows_from_the_name(name: str, format_: str) -> None:
    assert format_of(name).name == format_


@pytest.mark.parametrize(
    "name", ["", "a", "a.json", "a.gz", "a.pkl.gz", "a.parquet.gz", ".txt", "txt", "a.txt\x00", "a.csv", "a.tar.gz"]
)
def test_other_names_are_refused_with_what_is_read(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"\.txt, \.jsonl, \.txt\.gz, \.jsonl\.gz, \.parquet or \.pkl"):
        format_of(name)


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("a.txt", b"", "txt"),
        ("a.txt", b"text", "txt"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "jsonl.gz"),
        ("a.txt.gz", b"not compressed", "txt"),
        ("a.jsonl", b"PAR1\x15\x04", "parquet"),
        ("a.parquet", b"PAR1\x15\x04", "parquet"),
        ("a.txt", pickle.dumps([[1]]), "pkl"),
        ("a.pkl", pickle.dumps([[1]], protocol=0), "pkl"),
    ],
)
def test_the_content_says_it_better(tmp_path: Path, name: str, content: bytes, format_: str) -> None:
    (tmp_path / "file").write_bytes(content)
    assert recognise(tmp_path / "file", name).name == format_


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.parquet", b'{"text": "a"}', "no Parquet file"),
        ("a.txt", b"PK\x03\x04", "a zip archive"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd", "zstd"),
        ("a.jsonl", b"BZh9", "bzip2"),
        ("a.jsonl", b"\xfd7zXZ\x00", "xz"),
    ],
)
def test_content_that_is_not_read_is_named(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidInput, match=word):
        recognise(tmp_path / "file", name)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        (None, "utf-8"),
        ("UTF8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("GB18030", "gb18030"),
        ("latin-1", "iso8859-1"),
        ("Big5", "big5"),
    ],
)
def test_encodings_go_by_many_names(name: str | None, encoding: str) -> None:
    assert encoding_of(name, _TEXT) == encoding


@pytest.mark.parametrize("name", ["", "nope", "rot13", "base64", "zip", "idna", "unicode_escape", "undefined", "a\x00"])
def test_what_is_no_encoding_of_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no encoding that is known"):
        encoding_of(name, _TEXT)


def test_only_text_has_an_encoding() -> None:
    with pytest.raises(InvalidInput, match="leave it out"):
        encoding_of("gb18030", UploadFormat("parquet"))
