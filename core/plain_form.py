"""The plain form of an uploaded file: UTF-8 text or JSON lines, which is what is kept, and what the trainer reads.

gzip is unpacked, other encodings become UTF-8, Parquet and pickles become JSON lines. Line n of the plain form is line
n of the upload, or its row n.
"""

import codecs
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import Fault, InvalidInput
from core.upload_formats import UploadFormat

_CHUNK_BYTES = 2**20


def is_plain(format_: UploadFormat, encoding: str) -> bool:
    """Say whether a file is in its plain form as it is."""
    return format_.is_text and not format_.gzipped and encoding == "utf-8"


class PlainCopy(RawIOBase):
    """The plain form of a file, made and kept as it is read: `size` and `sha256` are those of what has been.

    Reading raises InvalidInput, with the line or row where that is known, for a file that is damaged, that holds other
    things than it should, or whose plain form is larger than `max_bytes`.
    """

    def __init__(self, chunks: Iterable[bytes], target: Path, *, max_bytes: int) -> None:
        self._chunks, self._rest, self._max_bytes = iter(chunks), memoryview(b""), max_bytes
        self._out = target.open("xb")
        self._hash, self.size = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        """Return the hash of what has been read."""
        return self._hash.hexdigest()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as may be, and return how many bytes came; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(filter(None, self._chunks), b""))
            self._keep(self._rest)
        count = min(len(self._rest), len(buffer))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close both, what was kept synced."""
        if not self._out.closed:
            self._out.flush()
            os.fsync(self._out.fileno())
            self._out.close()
        super().close()

    def _keep(self, chunk: memoryview) -> None:
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise InvalidInput(
                f"Unpacked, the file is over this server's limit of {self._max_bytes:,} bytes "
                "(EPOCHD_MAX_UPLOAD_BYTES). Upload it in parts."
            )
        self._hash.update(chunk)
        self._out.write(chunk)


def plain_chunks(source: Path, stream: BinaryIO, format_: UploadFormat, encoding: str) -> Iterable[bytes]:
    """Return the plain form of a file bit by bit. What can be read from its beginning to its end is read from `stream`.

    Iterating raises InvalidInput as a `PlainCopy` does.
    """
    # Imported where it is needed: a text is looked through without it.
    if format_.inner == "parquet":
        from core.parquet_rows import parquet_rows  # noqa: PLC0415 - pyarrow is slow to import

        return _lines(parquet_rows(source))
    if format_.inner == "pkl":
        from core.pickled_rows import pickled_rows  # noqa: PLC0415 - as above

        return _lines(pickled_rows(source))
    raw = _unpacked(stream) if format_.gzipped else iter(partial(stream.read, _CHUNK_BYTES), b"")
    return raw if encoding == "utf-8" else _recoded(raw, encoding)


def _lines(rows: Iterable[bytes]) -> Iterator[bytes]:
    for row in rows:
        yield row + b"\n"


def _unpacked(packed: BinaryIO) -> Iterator[bytes]:
    line = 1
    try:
        with gzip.open(packed, "rb") as stream:
            while chunk := stream.read1(_CHUNK_BYTES):  # `read` would lose what came before the damage
                yield chunk
                line += chunk.count(b"\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = "ends too early" if isinstance(error, EOFError) else f"is damaged ({error})"
        message = f"line {line} is the last that could be unpacked: the gzip file {what}. Compress and send it again."
        raise InvalidInput(
            "The dataset cannot be used: its gzip file is not whole.", [Fault(("line", line), message)]
        ) from error


def _recoded(raw: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    try:
        for chunk in raw:
            text = decoder.decode(chunk)
            line += text.count("\n")
            yield text.encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        line += _lines_before(error)
        message = f"line {line} is not {encoding}, or near it: name the encoding that the file is in"
        raise InvalidInput(f"The file is not written in {encoding}.", [Fault(("line", line), message)]) from error


def _lines_before(error: UnicodeError) -> int:
    """Return how many lines of a chunk were sound before the bytes that could not be decoded."""
    if not isinstance(error, UnicodeDecodeError):
        return 0
    return error.object[: error.start].decode(error.encoding, errors="replace").count("\n")
