"""Entries on disk: whole or not there, never older than their bytes say, never more than there is room for."""

import gc
import mmap
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from worker.training.token_cache import Entry, TokenCache, key_of

_BIG = 10**9


def _add(cache: TokenCache, key: str, content: bytes = b"x" * 1000) -> None:
    with cache.draft(key) as draft:
        (draft.folder / "data").write_bytes(content)
        draft.publish({"said": key}).close()


def _read(entry: Entry | None) -> bytes:
    assert entry is not None
    with entry:
        return entry.files["data"].read()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_entry_is_found_under_its_key(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "new" / "cache", max_bytes=_BIG)
    assert cache.find("a") is None
    _add(cache, "a", b"bytes")
    entry = TokenCache(tmp_path / "new" / "cache", max_bytes=_BIG).find("a")
    assert entry is not None
    assert entry.meta == {"said": "a"}
    assert _read(entry) == b"bytes"
    assert cache.find("b") is None


def test_a_key_names_every_part() -> None:
    assert key_of(a=1, b=None) == key_of(b=None, a=1)
    assert len({key_of(a=1), key_of(a="1"), key_of(b=1), key_of(a=1, b=1), key_of()}) == 5


def test_what_was_not_published_is_gone(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, max_bytes=_BIG)

    def fail() -> None:
        with cache.draft("a") as draft:
            (draft.folder / "data").write_bytes(b"half")
            assert cache.find("a") is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _names(tmp_path) == set()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "data", 999),
        lambda folder: (folder / "data").write_bytes(b"x" * 1001),
        lambda folder: (folder / "data").unlink(),
        lambda folder: (folder / "entry.json").unlink(),
        lambda folder: (folder / "entry.json").write_bytes(b""),
        lambda folder: (folder / "entry.json").write_bytes(b"[]"),
        lambda folder: (folder / "entry.json").write_bytes(b'{"meta": {}, "files": {"other": 1}}'),
    ],
    ids=["shorter", "longer", "file gone", "contents gone", "contents empty", "contents odd", "contents wrong"],
)
def test_a_damaged_entry_is_dropped_and_made_anew(tmp_path: Path, damage) -> None:
    cache = TokenCache(tmp_path, max_bytes=_BIG)
    _add(cache, "a")
    damage(tmp_path / "a")
    assert cache.find("a") is None
    assert _names(tmp_path) == set()
    _add(cache, "a")
    assert _read(cache.find("a")) == b"x" * 1000


def test_two_may_make_the_same_at_once(tmp_path: Path) -> None:
    one, other = TokenCache(tmp_path, max_bytes=_BIG), TokenCache(tmp_path, max_bytes=_BIG)
    with one.draft("a") as first, other.draft("a") as second:
        (first.folder / "data").write_bytes(b"same")
        (second.folder / "data").write_bytes(b"same")
        entries = [second.publish({}), first.publish({})]
    assert [_read(entry) for entry in entries] == [b"same", b"same"], "whoever came second can use its own"
    assert _names(tmp_path) == {"a"}


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, max_bytes=3500)
    for age, key in ((30, "c"), (20, "b"), (10, "a")):
        _add(cache, key)
        os.utime(tmp_path / key / "entry.json", (1_000_000 - age, 1_000_000 - age))
    assert _read(cache.find("c")), "now c was used last, and b is the oldest"
    _add(cache, "d")
    assert _names(tmp_path) == {"a", "c", "d"}


def test_an_entry_larger_than_the_cache_can_be_used_all_the_same(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, max_bytes=0)
    with cache.draft("a") as draft:
        (draft.folder / "data").write_bytes(b"large")
        entry = draft.publish({})
    assert _read(entry) == b"large"
    _add(cache, "b")
    assert "a" not in _names(tmp_path)


def test_what_is_mapped_is_not_evicted(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, max_bytes=1500)
    _add(cache, "a")
    entry = cache.find("a")
    assert entry is not None
    with entry:
        mapped = mmap.mmap(entry.files["data"].fileno(), 0, access=mmap.ACCESS_READ)
    _add(cache, "b")
    _add(cache, "c")
    assert _names(tmp_path) == {"a", "c"}, "a is the oldest, and in use though its file was closed"
    assert mapped[:] == b"x" * 1000
    del mapped
    gc.collect()
    _add(cache, "d")
    assert _names(tmp_path) == {"d"}


def test_what_was_opened_can_be_read_whatever_becomes_of_the_cache(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, max_bytes=_BIG)
    _add(cache, "a")
    entry = cache.find("a")
    shutil.rmtree(tmp_path)
    assert _read(entry) == b"x" * 1000


def test_what_a_dead_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worker.training.token_cache import TokenCache\n"
        "with TokenCache(Path(sys.argv[1]), max_bytes=10**9).draft('a') as draft:\n"
        "    (draft.folder / 'data').write_bytes(b'half'); print('writing', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    [draft] = tmp_path.iterdir()
    cache = TokenCache(tmp_path, max_bytes=_BIG)
    _add(cache, "b")
    assert _names(tmp_path) == {draft.name, "b"}, "its writer lives"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert draft.exists()
    _add(cache, "c")
    assert _names(tmp_path) == {"b", "c"}
