"""The lines of a file that should be text: numbered, decoded, and hashed as they are read."""

import hashlib
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import Fault

# One line (or one document of a .txt) is held in memory; a longer one is no line but a file of another kind.
MAX_ROW_BYTES = 64 * 2**20

# So much is handed on at once: each line by itself would cost more, and of more the processor's cache holds less.
_BLOCK_BYTES = 2**15
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


def raw_blocks(stream: BinaryIO) -> Iterator[tuple[int, list[bytes]] | Fault]:
    """Yield lines as they lie in the file, some at a time and with the number of the first of them, or the fault that
    ends the reading: a line that is too long.
    """
    first, block, size = 1, list[bytes](), 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        if len(raw) > MAX_ROW_BYTES:
            number = first + len(block)
            yield first, block
            yield Fault(("line", number), f"line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB")
            return
        if not block and first == 1:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        block.append(raw)
        size += len(raw)
        if size >= _BLOCK_BYTES:
            yield first, block
            first, block, size = first + len(block), [], 0
    yield first, block


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
    for block in raw_blocks(stream):
        if isinstance(block, Fault):
            yield block
            return
        for number, raw in enumerate(block[1], block[0]):
            text = decoded(number, raw)
            if isinstance(text, Fault):
                yield text
                return
            yield number, text


def _binary(raw: bytes, number: int) -> str:
    if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "this is UTF-16, which ?encoding=utf-16 (--encoding) reads"
    return "this is a binary file, not text"
