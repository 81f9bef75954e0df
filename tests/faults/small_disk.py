"""A file system of a test's own that is small enough to fill."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import missing

MB = 10**6


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes at `folder`, for as long as the block runs."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode != 0:
        missing("the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, *, leaving: int) -> Path:
    """Write a file that leaves so many bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        while (more := shutil.disk_usage(disk).free - leaving) > 0:
            file.write(bytes(min(more, MB)))
            file.flush()
    return ballast
