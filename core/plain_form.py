"""The plain form of an uploaded file: UTF-8 text or JSON lines, which is what is kept, and what the trainer reads.

gzip is unpacked, other encodings become UTF-8, Parquet and pickles become JSON lines. Line n of the plain form is line
n of the upload, or its row n.
"""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.disk import sync
from core.errors import Fault, InvalidInput
from core.upload_formats import UploadFormat

_CHUNK_BYTES = 2**20


def is_plain(format_: UploadFormat, encoding: str) -> bool:
    """Say whether a file is in its plain form as it is."""
    return format_.is_text and not format_.gzipped and encoding == "utf-8"


def write_plain(source: Path, target: Path, *, format_: UploadFormat, encoding: str, max_bytes: int) -> None:
    """Write the plain form of a file, synced.

    Raises InvalidInput, with the line or row where that is known, for a file that is damaged, that holds other things
    than it should, or that would be larger than `max_bytes`.
    """
    size = 0
    with target.open("xb") as out:
        for chunk in _chunks(source, format_, encoding):
            size += len(chunk)
            if size > max_bytes:
                raise InvalidInput(
                    f"Unpacked, the file is over this server's limit of {max_bytes:,} bytes (EPOCHD_MAX_UPLOAD_BYTES). "
                    "Upload it in parts."
                )
            out.write(chunk)
    sync(target)


def _chunks(source: Path, format_: UploadFormat, encoding: str) -> Iterable[bytes]:
    # Imported where it is needed: a text is looked through without it.
    if format_.inner == "parquet":
        from core.parquet_rows import parquet_rows  # noqa: PLC0415 - pyarrow is slow to import

        return _lines(parquet_rows(source))
    if format_.inner == "pkl":
        from core.pickled_rows import pickled_rows  # noqa: PLC0415 - as above

        return _lines(pickled_rows(source))
    raw = _unpacked(source) if format_.gzipped else _read(source)
    return raw if encoding == "utf-8" else _recoded(raw, encoding)


def _lines(rows: Iterable[bytes]) -> Iterator[bytes]:
    for row in rows:
        yield row + b"\n"


def _read(source: Path) -> Iterator[bytes]:
    with source.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _unpacked(source: Path) -> Iterator[bytes]:
    line = 1
    try:
        with gzip.open(source, "rb") as stream:
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
