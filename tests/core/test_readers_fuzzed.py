"""Whatever a file holds, its reader says that it is of use, or where it is not: nothing else comes of it."""

import gzip
import json
import pickle
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.inspection import Order, Outcome, inspect_upload, look_through
from core.upload_formats import recognise

LINES = "\n".join(json.dumps({"text": f"row {number} 道"}, ensure_ascii=False) for number in range(9)).encode()
PAIRS = b'{"prompt": "a", "completion": "b"}\n' * 3
TALKS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 2
IDS = [[1, 2, 3], [4, 5, 2**20]]
SOUND = {
    "a.txt": [b"one\n\ntwo\n", "道可道\n\n非常道".encode()],
    "a.jsonl": [LINES, PAIRS, TALKS, b'{"input_ids": [1, 2], "labels": [-100, 2]}\n'],
    "a.txt.gz": [gzip.compress(b"one\n\ntwo\n" * 20)],
    "a.jsonl.gz": [gzip.compress(LINES)],
    "a.pkl": [pickle.dumps(IDS, protocol) for protocol in range(6)],
}
# What readers trip over: lengths, depths, numbers at the edge of their types, opcodes of pickles.
BITS = [b"\x00", b"\xff" * 8, b"[" * 2000, b"{" * 50, b"9" * 5000, b"1e999", b"\\ud800", b"\x80\x05c\x94R.", b"\n\r\n"]


@st.composite
def damaged(draw: st.DrawFn, sound: list[bytes]) -> bytes:
    """Draw a file that was cut, changed or had something put into it, several times over."""
    content = draw(st.sampled_from(sound))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 1, 4, 1000])))
        put = draw(st.binary(max_size=8) | st.sampled_from(BITS))
        content = content[:start] + put + content[end:]
    return content


def looked_at(folder: Path, name: str, content: bytes, *, apart: bool) -> Outcome:
    """Write a file and have it looked through, in this process or in one of its own."""
    path = folder / name
    path.write_bytes(content)
    order = Order(
        path=path,
        format=recognise(path, name),
        encoding="utf-8",
        split="blank_line",
        plain=folder / "plain",
        max_bytes=2**20,
        max_memory_bytes=2**32,
        max_seconds=60,
    )
    return look_through(order) if apart else inspect_upload(order)


def told(name: str, content: bytes, *, apart: bool = False) -> None:
    """Look at a file, which has to end in a report or in a sentence."""
    # Of a MemoryError the process that reads uploads makes a sentence.
    with TemporaryDirectory() as folder, suppress(InvalidInput, MemoryError):
        outcome = looked_at(Path(folder), name, content, apart=apart)
        assert outcome.report


@pytest.mark.parametrize("name", SOUND)
def test_no_file_does_more_than_be_refused(name: str) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damaged(SOUND[name]))
    def fuzz(content: bytes) -> None:
        told(name, content)

    fuzz()


def test_no_parquet_does_more_than_be_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"row {number}" for number in range(50)]}), made)
    sound = [made.read_bytes()]

    # The library behind it may fall: it does so in a process of its own, which takes its time to start.
    @settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damaged(sound))
    def fuzz(content: bytes) -> None:
        told("a.parquet", content, apart=True)

    fuzz()
