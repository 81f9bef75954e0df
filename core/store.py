"""Where datasets and checkpoints are kept: files and folders under a key, complete or absent, never overwritten.

Only an upload on its way is a file that grows: under a key of its own, and nothing reads it before it is complete.
"""

import fcntl
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.disk import sync
from core.errors import Corrupt, Unusable
from core.ids import new_id

# A path that nobody holds may belong to someone who is about to: it is swept only when it is older than this.
_GRACE_SECONDS = 60.0


class Store:
    """A local folder. Everything is written aside and renamed into place, with the directory entry synced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A path on the store's own disk to write a file or a folder to; what is not adopted is deleted at the end."""
        path = self._incoming / new_id("in")
        with _lock_file(path).open("xb") as lock:
            # The kernel lets go of it when this process ends, however it ends: `sweep` then deletes the path.
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield path
            finally:
                _delete(path)
                _delete(_lock_file(path))

    def sweep(self) -> list[str]:
        """Delete what writers that are gone have left of what they did not finish, and return the names."""
        swept = []
        for path in {self._incoming / entry.stem for entry in self._incoming.iterdir()}:
            if self._is_left(path):
                _delete(path)
                _delete(_lock_file(path))
                swept.append(path.name)
        return swept

    def _is_left(self, path: Path) -> bool:
        try:
            with _lock_file(path).open("ab") as lock:
                young = time.time() - os.fstat(lock.fileno()).st_mtime < _GRACE_SECONDS
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return not young

    def adopt(self, source: Path, key: str) -> None:
        """Move a synced file or folder in under `key`. Raises FileExistsError where the key is taken."""
        target = self._path(key)
        if target.exists():
            raise FileExistsError(f"{key} is taken")
        _make_folder(target.parent)
        if source.stat().st_dev != target.parent.stat().st_dev:
            with self.incoming() as copy:
                _copy(source, copy)
                copy.rename(target)
            _delete(source)
        else:
            source.rename(target)
        sync(target.parent)

    def grow(self, key: str) -> None:
        """Begin an empty file under `key`, which `extend` makes longer; one that is there already stays as it is."""
        path = self._path(key)
        _make_folder(path.parent)
        path.touch()

    def extend(self, key: str, data: bytes, *, offset: int) -> None:
        """Write bytes into a file that grows. Two that write the same bytes at the same place do no harm.

        Raises Corrupt where the file is gone.
        """
        try:
            descriptor = os.open(self._path(key), os.O_WRONLY)
        except FileNotFoundError as error:
            raise Corrupt(f"{key} is missing from the store") from error
        with open(descriptor, "wb", buffering=0) as stream:
            view = memoryview(data)
            while view:
                written = os.pwrite(stream.fileno(), view, offset)
                view, offset = view[written:], offset + written

    def link(self, key: str, path: Path) -> None:
        """Give the file under `key` a second name, synced: what becomes of the first is nothing to it.

        Raises Corrupt where the file is gone.
        """
        try:
            os.link(self._path(key), path)
        except FileNotFoundError as error:
            raise Corrupt(f"{key} is missing from the store") from error
        sync(path)

    def length(self, key: str) -> int:
        """Return the size of the file under `key`; 0 where there is none."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return 0

    def idle_seconds(self, key: str) -> float:
        """Return for how long nothing was written to the file under `key`; for ever where there is none."""
        try:
            return time.time() - self._path(key).stat().st_mtime
        except FileNotFoundError:
            return math.inf

    def fetch(self, key: str) -> Path:
        """Return a local path of what lies under `key`, to read only. Raises Corrupt where it is gone."""
        path = self._path(key)
        if not path.exists():
            raise Corrupt(f"{key} is missing from the store")
        return path

    def names(self, key: str) -> list[str]:
        """Return the names of what lies directly under `key`."""
        try:
            return sorted(entry.name for entry in self._path(key).iterdir())
        except FileNotFoundError:
            return []

    def delete(self, key: str) -> None:
        """Remove what lies under `key`, if anything does."""
        _delete(self._path(key))

    def set_aside(self, key: str) -> None:
        """Take a damaged folder out of use, but keep it for whoever wants to look: `<key>.damaged`."""
        path = self._path(key)
        aside = path.with_name(path.name + ".damaged")
        if path.exists():
            # A store that was restored from a backup can hold the same folder twice: sound once, set aside once.
            _delete(aside)
            path.rename(aside)

    def free_bytes(self) -> int:
        """Return the space left on the store's disk."""
        return shutil.disk_usage(self._root).free

    def _path(self, key: str) -> Path:
        return self._root / key


def open_store(url: str) -> Store:
    """Return the store at `url`. Raises Unusable where the URL is no folder's, or the folder cannot be made."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or path[:1] != "/" or "\0" in path:
        # Not the address itself: one of another kind may hold a password.
        raise Unusable(
            "EPOCHD_STORE_URL is no folder: use file:///ABSOLUTE/PATH of one that the API and all workers share."
        )
    try:
        return Store(Path(path))
    except OSError as error:
        raise Unusable(f"The store's folder {parts.path} cannot be made: {error.strerror}.") from error


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each entry synced: else a crash could lose it with all that is in it."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    for path in (target, *target.rglob("*")):
        sync(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
