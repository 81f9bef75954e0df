"""What was made from a dataset's content, kept on disk for the next job: entries that are there whole or not at all.

<folder>/<key>/        an entry: its files, and entry.json with the size of each
<folder>/.draft-…/     an entry under way, locked by whoever writes it; without a lock, what a dead process left

A key names all that an entry follows from, so an entry is never changed, and any number of trainers may share a folder.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self
from uuid import uuid4

from pydantic import BaseModel

from core.disk import sync

_DRAFT = ".draft-"
_CONTENTS = "entry.json"


def key_of(**parts: Any) -> str:
    """Return the key of what follows from these parts (anything JSON can write)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Contents(BaseModel):
    """What entry.json says: the writer's notes, and how long each file is, in bytes."""

    meta: dict[str, Any]
    files: dict[str, int]


class Entry:
    """An entry's files, open, and `meta`, what its writer noted.

    Each file is locked against eviction for as long as it is open, or mapped into memory: a mapping keeps its
    descriptor, and with it the lock.
    """

    def __init__(self, folder: Path) -> None:
        """Open an entry. Raises OSError or ValueError where it is not whole."""
        self.files: dict[str, BinaryIO] = {}
        try:
            contents = _Contents.model_validate_json((folder / _CONTENTS).read_bytes())
            self.meta = contents.meta
            for name, size in contents.files.items():
                file = self.files[name] = (folder / name).open("rb")
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_size != size:
                    raise ValueError(f"{file.name} is not as long as it was")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files. What was mapped stays readable, and locked."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Draft:
    """An entry under way: write its files into `folder`, then `publish` it."""

    def __init__(self, cache: "TokenCache", folder: Path, key: str) -> None:
        self._cache, self._key = cache, key
        self.folder = folder

    def publish(self, meta: dict[str, Any]) -> Entry:
        """Make the entry durable and known under its key, with `meta` (anything JSON can write), and open it."""
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        (self.folder / _CONTENTS).write_text(_Contents(meta=meta, files=sizes).model_dump_json(), encoding="utf-8")
        # Synced, or a power cut could leave files of the right length without their bytes.
        for path in [*self.folder.iterdir(), self.folder]:
            sync(path)
        entry = Entry(self.folder)
        self._cache.install(self.folder, self._key)
        return entry


class TokenCache:
    """Entries in a folder, together at most `max_bytes`: those used longest ago make room for new ones."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._max_bytes = folder, max_bytes

    def find(self, key: str) -> Entry | None:
        """Open the entry of a key; None where there is none. A damaged one is dropped, and never opened."""
        folder = self._folder / key
        try:
            os.utime(folder / _CONTENTS)  # used now: what `_evict` goes by
            return Entry(folder)
        except BlockingIOError:
            return None  # it is being evicted
        except (OSError, ValueError):
            self._drop(folder)
            return None

    @contextmanager
    def draft(self, key: str) -> Iterator[Draft]:
        """Begin an entry. What is not published by the end of the block is deleted."""
        self._sweep()
        folder, lock = self._new_draft()
        try:
            yield Draft(self, folder, key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def install(self, draft: Path, key: str) -> None:
        """Give a finished draft its place. Where another trainer was quicker with the same, the draft stays one."""
        try:
            draft.rename(self._folder / key)
        except OSError:
            if not (self._folder / key).exists():
                raise
        else:
            sync(self._folder)
        self._evict()

    def _new_draft(self) -> tuple[Path, int]:
        """Make a folder and lock it, for as long as the returned descriptor is open."""
        while True:
            folder = self._folder / f"{_DRAFT}{uuid4().hex}"
            folder.mkdir()
            try:
                lock = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:
                continue  # someone swept it before it was locked
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return folder, lock
            os.close(lock)

    def _sweep(self) -> None:
        """Delete the drafts that nobody holds a lock on: their writers are dead."""
        for folder in self._folder.glob(f"{_DRAFT}*"):
            with ExitStack() as locks:
                if _lock(folder, locks):
                    shutil.rmtree(folder, ignore_errors=True)

    def _evict(self) -> None:
        """Drop entries, the one used longest ago first, until the rest fits. None is dropped that is in use."""
        folders = [path for path in self._folder.iterdir() if not path.name.startswith(_DRAFT)]
        entries = sorted((*_use(folder), folder) for folder in folders)
        total = sum(size for _, size, _ in entries)
        for _, size, folder in entries:
            if total <= self._max_bytes:
                return
            with ExitStack() as locks:
                if all(_lock(path, locks) for path in _files(folder)):
                    self._drop(folder)
                    total -= size

    def _drop(self, folder: Path) -> None:
        """Delete an entry. It vanishes at once, so that nobody opens it half deleted."""
        dropped = self._folder / f"{_DRAFT}{uuid4().hex}"
        try:
            folder.rename(dropped)
        except FileNotFoundError:
            return  # someone else was quicker
        shutil.rmtree(dropped, ignore_errors=True)


def _lock(path: Path, locks: ExitStack) -> bool:
    """Lock a file or a folder for as long as `locks` lives; False where someone else holds a lock, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        locks.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []  # evicted by someone else


def _use(folder: Path) -> tuple[float, int]:
    """Return when an entry was last used, and its size in bytes."""
    try:
        return (folder / _CONTENTS).stat().st_mtime, sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0.0, 0
