"""The lines of a file that should be text: numbered, decoded, and hashed as they are read."""

import hashlib
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import Fault

# One line (or one document of a .txt) is held in memory; a longer one is no line but a file of another kind.
MAX_ROW_BYTES = 64 * 2**20

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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


def raw_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes] | Fault]:
    """Yield numbered lines as they lie in the file, or the fault that ends the reading: a line that is too long."""
    number = 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(raw) > MAX_ROW_BYTES:
            yield Fault(("line", number), f"line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB")
            return
        yield number, raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw


def decoded(number: int, raw: bytes) -> str | Fault:
    """Return a line as text, or what is wrong with it: past that nothing of the file can be trusted."""
    if b"\x00" in raw:
        return Fault(("line", number), f"line {number} holds a NUL byte: {_binary(raw, number)}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        way_out = "name the file's encoding (?encoding=gb18030, --encoding), or convert it to UTF-8"
        return Fault(("line", number), f"line {number} is not UTF-8 (byte {error.start}): {way_out}")


def text_lines(stream: BinaryIO) -> Iterator[tuple[int, str] | Fault]:
    """Yield numbered lines of UTF-8, or the fault that ends the reading."""
    for line in raw_lines(stream):
        if isinstance(line, Fault):
            yield line
            return
        text = decoded(*line)
        if isinstance(text, Fault):
            yield text
            return
        yield line[0], text


def _binary(raw: bytes, number: int) -> str:
    if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "this is UTF-16, which ?encoding=utf-16 (--encoding) reads"
    return "this is a binary file, not text"
