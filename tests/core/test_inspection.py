"""Any upload in its plain form, looked through within limits: what is in each format comes out, and nothing runs."""

import gzip
import json
import os
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core.dataset_files import DataFile, Row, read_rows
from core.errors import InvalidInput
from core.inspection import Order, Outcome, inspect_upload, look_through, plain_format
from core.plain_form import is_plain
from core.upload_formats import encoding_of, recognise

Look = Callable[..., tuple[Outcome, list[Row]]]

CONVERSATION = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
LIMIT = 2**20


def parquet(path: Path, **columns: list[Any]) -> bytes:
    """Return a Parquet file of these columns."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path.read_bytes()


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Look through a file of this content, and return what was found and the rows that a trainer will read.

    In this process, unless `apart`, as uploads are looked through.
    """

    def look(
        name: str, content: bytes, encoding: str | None = None, *, apart: bool = False, **changes: Any
    ) -> tuple[Outcome, list[Row]]:
        path, plain = tmp_path / "upload", tmp_path / "plain"
        plain.unlink(missing_ok=True)
        path.write_bytes(content)
        format_ = recognise(path, name)
        order = Order(
            path=path,
            format=format_,
            encoding=encoding_of(encoding, format_),
            split="blank_line",
            plain=plain,
            max_bytes=LIMIT,
            max_memory_bytes=2**30,
            max_seconds=60,
        ).model_copy(update=changes)
        outcome = look_through(order) if apart else inspect_upload(order)
        kept = path if is_plain(format_, order.encoding) else plain
        return outcome, list(read_rows(DataFile(path=kept, format=plain_format(format_))))

    return look


TEXT = "你好、世界\nand more\n\nsecond é\n"
TEXTS = [Row(text="你好、世界\nand more"), Row(text="second é")]
LINES = '{"text": "你好"}\n\n{"text": ""}\n{"text": "b"}\n'


def test_text_comes_out_of_gzip_and_of_every_encoding(look: Look) -> None:
    for name, content, encoding in (
        ("a.txt", TEXT.encode(), None),
        ("a.txt", b"\xef\xbb\xbf" + TEXT.encode(), None),
        ("a.txt.gz", gzip.compress(TEXT.encode(), mtime=0), None),
        ("a.txt", TEXT.encode("gb18030"), "gb18030"),
        ("a.txt.gz", gzip.compress(TEXT.encode("utf-16"), mtime=0), "utf-16"),
    ):
        outcome, rows = look(name, content, encoding)
        assert rows == TEXTS, (name, encoding)
        assert outcome.report
        assert outcome.report["rows"] == 2
    two_members = gzip.compress(LINES[:9].encode(), mtime=0) + gzip.compress(LINES[9:].encode())
    outcome, rows = look("a.jsonl.gz", two_members)
    assert rows == [Row(text="你好"), Row(text="b")]
    assert outcome.report
    assert outcome.report["warnings"] == [{"line": 3, "message": "empty, will be skipped"}]


def test_every_kind_of_row_comes_out_of_parquet(look: Look, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, list[Any]], list[Row]]] = [
        ({"text": ["a", "", "b\x00"], "id": [1, 2, 3]}, [Row(text="a"), Row(text="b\x00")]),
        ({"prompt": ["a"], "completion": ["b"]}, [Row(prompt="a", completion="b")]),
        ({"messages": [CONVERSATION]}, [Row(messages=CONVERSATION)]),
        (
            {"input_ids": [[1, 2], [3]], "labels": [[-100, 2], None]},
            [Row(input_ids=[1, 2], labels=[-100, 2]), Row(input_ids=[3], labels=[3])],
        ),
    ]
    for columns, rows in cases:
        assert look("a.parquet", parquet(tmp_path / "made", **columns))[1] == rows


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_token_lists_come_out_of_every_pickle(look: Look, protocol: int) -> None:
    shared = [7, 300, 70_000]
    outcome, rows = look("train.pkl", pickle.dumps([shared, [0], shared, []], protocol=protocol), apart=protocol == 4)
    assert [row.input_ids for row in rows] == [shared, [0], shared]
    assert outcome.report
    assert (outcome.report["tokens"], outcome.report["duplicate_rows"], outcome.report["skipped_rows"]) == (7, 1, 1)


# Files that are no good ----------------------------------------------------------------------------------------------


class Runs:
    """What a pickle calls when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def test_no_pickle_runs_anything(look: Look, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    touch = f"touch {marker}"
    attacks = [
        *(pickle.dumps([[Runs(os.system, touch)]], protocol=protocol) for protocol in range(6)),
        pickle.dumps(Runs(eval, f"open({str(marker)!r}, 'w')")),
        b"cos\nsystem\n(S'%s'\ntR." % touch.encode(),
        b"(S'%s'\nios\nsystem\n." % touch.encode(),
        b"(cos\nsystem\nS'%s'\no." % touch.encode(),
        b"\x80\x02cbuiltins\nexec\n\x85\x81.",
        b"\x80\x02\x82\x01.",  # an extension
        b"\x80\x02]q\x00Pid\na.",  # a persistent id
        b"\x80\x05\x97.",  # a buffer from outside
        b"\x80\x04]}b.",  # a state for a list
    ]
    for attack in attacks:
        with pytest.raises(InvalidInput, match="pickle"):
            look("train.pkl", attack)
    assert not marker.exists()


def _flipped(content: bytes, seed: int) -> bytes:
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(8):
        changed[chance.randrange(4, len(changed))] = chance.randrange(256)
    return bytes(changed)


def test_a_forged_parquet_file_does_harm_to_nobody(look: Look, tmp_path: Path) -> None:
    good = parquet(tmp_path / "made", text=[f"row {number}" for number in range(500)])
    forged = [good[:100] + good[-100:], *(_flipped(good, seed) for seed in range(3))]
    for content in forged:
        with suppress(InvalidInput):  # a change may also do nothing, or make other words
            look("a.parquet", content, apart=True)
    for columns in ({"id": [1]}, {"labels": [[1]]}, {"text": [1.5]}, {"text": [None]}, {"text": [b"bytes"]}):
        with pytest.raises(InvalidInput):
            look("a.parquet", parquet(tmp_path / "made", **columns))


def test_what_unpacks_to_much_more_is_refused_at_the_limit(look: Look, tmp_path: Path) -> None:
    row = [1] * 1000
    bombs = {
        "a.txt.gz": gzip.compress(b"\x00" * (20 * LIMIT)),
        "a.parquet": parquet(tmp_path / "made", text=["the same again"] * (LIMIT // 4)),
        "a.pkl": pickle.dumps([row] * (LIMIT // 100)),
    }
    for name, bomb in bombs.items():
        assert len(bomb) < LIMIT / 10
        with pytest.raises(InvalidInput, match=r"over this server's limit of 1,048,576 bytes"):
            look(name, bomb)
        assert (tmp_path / "plain").stat().st_size <= LIMIT


def test_memory_and_time_are_limited(look: Look) -> None:
    many = pickle.dumps([list(range(300, 6_000_300))])
    with pytest.raises(InvalidInput, match="EPOCHD_INSPECTION_MEMORY_BYTES"):
        look("a.pkl", many, max_memory_bytes=2**28, apart=True)
    # A memo for two thousand million objects.
    with pytest.raises(InvalidInput, match=r"pickle|memory"):
        look("a.pkl", b"\x80\x04]r\xff\xff\xff\x7f.", apart=True)
    with pytest.raises(InvalidInput, match="EPOCHD_INSPECTION_SECONDS"):
        look("a.txt.gz", gzip.compress(b"some words\n\n" * 3_000_000, 1), max_seconds=1, max_bytes=2**30, apart=True)


def test_a_line_of_a_gigabyte_is_refused_in_little_memory(look: Look, tmp_path: Path) -> None:
    upload = tmp_path / "gigabyte"
    with upload.open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(InvalidInput) as caught:
        look("a.jsonl", b"", path=upload, max_memory_bytes=2**29, apart=True)
    assert caught.value.faults[0].msg == "line 1 is longer than 64 MiB"


FAULTY: list[tuple[str, bytes, str | None, tuple[str, int], str]] = [
    ("a.jsonl.gz", gzip.compress(LINES.encode() * 9, mtime=0)[:-8], None, ("line", 37), "ends too early"),
    ("a.txt.gz", gzip.compress(b"one\ntwo\n", mtime=0) + b"three", None, ("line", 3), "is damaged"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\nnope\n', mtime=0), None, ("line", 2), "is not JSON"),
    ("a.txt", "一\n二\n".encode("gb18030") + b"\xff\xff\n", "gb18030", ("line", 3), "is not gb18030"),
    ("a.txt", "一\n".encode() + "é".encode("latin-1"), None, ("line", 2), "is not UTF-8"),
    ("a.txt", b"one\ntwo\n\x00\x01\n", None, ("line", 3), "NUL byte"),
    ("a.jsonl", b'{"text": "a"}\n' + gzip.compress(b'{"text": "b"}\n', mtime=0), None, ("line", 2), "line 2"),
    ("a.jsonl", b'{"text": "a"}\n{"input_ids": [1]}\n', None, ("line", 2), "where the rows before have text"),
    ("a.pkl", pickle.dumps([[1], [2, "b"]]), None, ("row", 2), "something beside whole numbers"),
    ("a.pkl", pickle.dumps([[1], [True]]), None, ("row", 2), "something beside whole numbers"),
    ("a.pkl", pickle.dumps([[1], (2,)]), None, ("row", 2), "a tuple"),
    ("a.pkl", pickle.dumps([[1], [2**40]]), None, ("row", 2), "no token id"),
    ("a.pkl", pickle.dumps([[1], [-1]]), None, ("row", 2), "row 2 has input_ids that are not"),
]


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case[4])
def test_a_fault_is_told_with_its_place(look: Look, case: tuple[str, bytes, str | None, tuple[str, int], str]) -> None:
    name, content, encoding, loc, word = case
    with pytest.raises(InvalidInput) as caught:
        look(name, content, encoding)
    (fault,) = caught.value.faults
    assert fault.loc == loc
    assert word in fault.msg


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        pickle.dumps([[1, 2]])[:-3],
        pickle.dumps({"a": 1}),
        pickle.dumps([1, 2]),
        pickle.dumps([[1]]) + b"more",
        pickle.dumps([]),
        pickle.dumps([[]]),
        b"\x80\x04\x8e" + b"\xff" * 8 + b"x.",  # bytes of more than there ever were
        json.dumps([[1, 2]]).encode(),
    ],
)
def test_a_pickle_of_something_else_is_refused(look: Look, content: bytes) -> None:
    with pytest.raises(InvalidInput):
        look("train.pkl", content)
