"""The data directory of a local stack: one holder at a time, and what it leaves there for the CLI to find."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from core.errors import Unusable


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Make the directory where it is missing, and hold it. Raises Unusable where another process does.

    The lock is the kernel's: it ends with its process, however that ends, and is never left behind.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+")
    except OSError as error:
        raise Unusable(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Name another with EPOCHD_DATA_DIR."
        ) from error
    with lock:
        if not _locked(lock):
            raise Unusable(
                f"epochd is already running on {data_dir} (process {_pid_in(lock)}). "
                "Stop that one, or name another data directory with EPOCHD_DATA_DIR."
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def holder(data_dir: Path) -> str | None:
    """Return the process id of the stack that runs on this directory, or None."""
    try:
        lock = (data_dir / "lock").open("r+")
    except OSError:
        return None
    with lock:
        return None if _locked(lock) else _pid_in(lock)


def leave_url(data_dir: Path, url: str) -> None:
    """Write down where the stack answers."""
    aside = data_dir / "url.new"
    aside.write_text(url + "\n")
    aside.replace(data_dir / "url")


def forget_url(data_dir: Path) -> None:
    """Nothing answers any more."""
    (data_dir / "url").unlink(missing_ok=True)


def found_url(data_dir: Path) -> str | None:
    """Return where the stack on this directory answers, if one left word of it."""
    return _content(data_dir / "url")


def found_key(data_dir: Path) -> str | None:
    """Return the first key of this directory's stack, if it lies there and may be read."""
    return _content(data_dir / "key")


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read().strip() or "unknown"


def _content(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
