"""The lines of a file that should be text: numbered, decoded, and hashed as they are read."""

import hashlib
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import Fault

# One line (or one document of a .txt) is held in memory; a longer one is no line but a file of another kind.
MAX_ROW_BYTES = 64 * 2**20


class Hashed(RawIOBase):
    """A file whose bytes are hashed as they are read: `sha256` is that of all bytes so far."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as may be, and return how many bytes came; 0 at the end."""
        count = self._file.readinto(buffer) or 0
        self.sha256.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def text_lines(stream: BinaryIO) -> Iterator[tuple[int, str] | Fault]:
    """Yield numbered lines of UTF-8, or the fault that ends the reading: past it nothing can be trusted."""
    number = 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(raw) > MAX_ROW_BYTES:
            yield Fault(("line", number), f"line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB")
            return
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\x00" in raw:
            yield Fault(("line", number), f"line {number} holds a NUL byte: this is a binary file, not text")
            return
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Fault(("line", number), f"line {number} is not UTF-8 (byte {error.start}): convert the file to UTF-8")
            return
