"""The store: complete or absent, never overwritten, and a clear word where it cannot be."""

import os
from pathlib import Path

import pytest

from core.errors import Corrupt, Unusable
from core.store import Store, open_store
from tests.services import missing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a store."""
    return tmp_path / "a store with 100% & ümlaut?#"


@pytest.fixture
def kept(root: Path) -> Store:
    """A store in it."""
    return open_store(root.as_uri())


def _folder(path: Path, content: str = "x") -> Path:
    (path / "model").mkdir(parents=True)
    (path / "model" / "weights").write_text(content)
    return path


def test_a_file_and_a_folder_move_in_whole(kept: Store, root: Path) -> None:
    with kept.incoming() as path:
        path.write_text("rows")
        kept.adopt(path, "datasets/ds_1")
        assert not path.exists()
    with kept.incoming() as path:
        kept.adopt(_folder(path), "checkpoints/job_1/1-5")
    assert kept.fetch("datasets/ds_1").read_text() == "rows"
    assert (kept.fetch("checkpoints/job_1/1-5") / "model" / "weights").read_text() == "x"
    assert list((root / "incoming").iterdir()) == []


def test_nothing_is_ever_overwritten(kept: Store) -> None:
    for key, write in (("datasets/ds_1", Path.write_text), ("checkpoints/j/1-1", _folder)):
        with kept.incoming() as path:
            write(path, "first")
            kept.adopt(path, key)
        with kept.incoming() as path:
            write(path, "second")
            with pytest.raises(FileExistsError):
                kept.adopt(path, key)
    assert kept.fetch("datasets/ds_1").read_text() == "first"
    assert (kept.fetch("checkpoints/j/1-1") / "model" / "weights").read_text() == "first"


def test_what_is_not_adopted_is_deleted_whatever_happens(kept: Store, root: Path) -> None:
    def fail() -> None:
        with kept.incoming() as path:
            _folder(path)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with kept.incoming() as path:
        path.write_text("x")
    with kept.incoming():
        pass
    assert list((root / "incoming").iterdir()) == []


def test_what_comes_from_another_disk_is_copied_and_then_gone(kept: Store, root: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == root.stat().st_dev:
        missing("a second file system at /dev/shm")
    for key, make in (("f/1", lambda path: path.write_text("x")), ("f/2", _folder)):
        source = shm / f"epochd-test-{os.getpid()}-{key[-1]}"
        make(source)
        kept.adopt(source, key)
        assert not source.exists()
    assert kept.fetch("f/1").read_text() == "x"
    assert (kept.fetch("f/2") / "model" / "weights").read_text() == "x"
    assert list((root / "incoming").iterdir()) == []


def test_every_new_folder_s_entry_is_synced(kept: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    with kept.incoming() as path:
        _folder(path)
        monkeypatch.setattr(os, "fsync", record)
        kept.adopt(path, "checkpoints/job_1/1-5")
    assert synced == [root, root / "checkpoints", root / "checkpoints" / "job_1"]


def test_deleting_is_silent_and_fetching_what_is_gone_is_not(kept: Store) -> None:
    with kept.incoming() as path:
        kept.adopt(_folder(path), "c/1")
    kept.delete("c/1/model")
    kept.delete("c/1")
    kept.delete("c/1")
    with pytest.raises(Corrupt, match="c/1 is missing"):
        kept.fetch("c/1")


def test_what_is_set_aside_is_out_of_use_but_kept(kept: Store, root: Path) -> None:
    with kept.incoming() as path:
        kept.adopt(_folder(path), "c/1")
    kept.set_aside("c/1")
    kept.set_aside("c/1")
    with pytest.raises(Corrupt):
        kept.fetch("c/1")
    assert (root / "c" / "1.damaged" / "model" / "weights").read_text() == "x"
    with kept.incoming() as path:
        kept.adopt(_folder(path, "y"), "c/1")
    kept.set_aside("c/1")
    assert (root / "c" / "1.damaged" / "model" / "weights").read_text() == "y"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/tmp/x",
        "s3://bucket",
        "file:",
        "file://",
        "file:x",
        "file://host/x",
        "file://[",
        "file:///a%00b",
        "x",
        "file:///a?b",
        "file:///a#b",
        "http://localhost/",
    ],
)
def test_what_is_no_folder_s_url_is_refused_by_the_setting_s_name(url: str) -> None:
    with pytest.raises(Unusable, match=r"EPOCHD_STORE_URL.*file:///ABSOLUTE/PATH"):
        open_store(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="cannot be made"):
        open_store((tmp_path / "file" / "store").as_uri())


def test_free_space_is_that_of_its_disk(kept: Store) -> None:
    assert kept.free_bytes() > 0
