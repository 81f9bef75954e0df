"""Receiving a file, or a part of one: straight to its place on disk, never held in memory."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import anyio.to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.errors import SlowClient
from core.errors import InvalidInput
from core.store import Store

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# What is handed to the disk at once: a hop to a thread for each network read would cost more than the write.
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Received:
    """A complete file on the disk, synced."""

    path: Path
    filename: str
    size: int
    sha256: str


class _Sink:
    """A file that is being written and hashed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._hash.hexdigest()


async def receive(
    request: Request, path: Path, filename: str | None, *, grown: Callable[[Path, str, int], None] = lambda *_: None
) -> Received:
    """Write the file of a request to `path`: the body itself, or the one part `file` of a multipart form.

    `grown` is told of the file, its name, and how much of it is there, again and again, and ends it by raising an
    error. Raises InvalidInput where there is no file or no name for it.
    """
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    with path.open("xb") as stream:
        sink = _Sink(stream)
        form = _Form(options.get(b"boundary", b""), sink) if media_type == b"multipart/form-data" else None
        if form is None and not filename:
            raise InvalidInput.at(("query", "filename"), "Name the file: ?filename=corpus.jsonl, or send it in a form.")
        name = plain_name(filename) if filename else ""

        def tell() -> None:
            if sink.size:
                grown(path, name or plain_name(form.filename if form else ""), sink.size)

        await _pump(request, form.write if form else sink.write, tell)
        if form:
            form.check_complete()
        sha256 = await anyio.to_thread.run_sync(sink.finish)
    return Received(path, name or plain_name(form.filename if form else ""), sink.size, sha256)


async def append_body(request: Request, store: Store, key: str, *, offset: int, end: int) -> None:
    """Write a request's body into a file that grows, from `offset` on; what has come is kept if the rest never does.

    Raises InvalidInput where the body goes beyond `end`, Corrupt where the file is gone.
    """

    def write(data: bytes) -> None:
        nonlocal offset
        if offset + len(data) > end:
            raise InvalidInput(f"More bytes came than the {end} that were announced: the file changed meanwhile.")
        store.extend(key, data, offset=offset)
        offset += len(data)

    await _pump(request, write)


async def _pump(request: Request, write: Callable[[bytes], None], tell: Callable[[], None] = lambda: None) -> None:
    pending, writing = bytearray(), _Writing(write)
    try:
        async for chunk in request.stream():
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                await writing.begin(bytes(pending))
                pending.clear()
                tell()
    except (ClientDisconnect, SlowClient):
        await writing.begin(bytes(pending))  # so a client that is cut off again and again gets on all the same
        raise
    else:
        await writing.begin(bytes(pending))
    finally:
        await writing.end()


class _Writing:
    """Writes in a thread while more comes in: one write at a time, in order."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write, self._under_way = write, list[asyncio.Task[None]]()

    async def begin(self, data: bytes) -> None:
        """Begin a write, once the one before has ended. Raises what that raised."""
        await self.end()
        self._under_way.append(asyncio.create_task(anyio.to_thread.run_sync(self._write, data)))

    async def end(self) -> None:
        """Wait for the write that is under way. Raises what it raises."""
        while self._under_way:
            await self._under_way.pop()


class _Form:
    """A multipart form of one part, `file`, whose content goes to a sink."""

    def __init__(self, boundary: bytes, sink: _Sink) -> None:
        self.filename = ""
        self._sink = sink
        self._header_name, self._header_value, self._disposition = b"", b"", b""
        self._parts, self._complete = 0, False
        callbacks: MultipartCallbacks = {
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": lambda data, start, end: sink.write(data[start:end]),
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary or b"-", callbacks)
        except FormParserError as error:
            raise _broken(error) from error

    def write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(error) from error

    def check_complete(self) -> None:
        if not self._complete:
            raise InvalidInput("The form ends too early: the upload was cut off. Send it again.")
        if not self._parts:
            raise InvalidInput("The form is empty: send the file in its part `file` (curl: -F file=@corpus.jsonl).")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        self._parts += 1
        if name != "file" or self._parts > 1:
            raise InvalidInput.at((name,), "The form must have one part, `file` (curl: -F file=@corpus.jsonl).")
        self.filename = options.get(b"filename", b"").decode(errors="replace")

    def _on_end(self) -> None:
        self._complete = True


def plain_name(filename: str) -> str:
    """Return the last part of a path. Raises InvalidInput for what is no name of a file."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    if not name or len(name) > 255 or not name.isprintable():
        raise InvalidInput.at(("filename",), "The file needs a plain name of up to 255 characters: corpus.jsonl, say.")
    return name


def _broken(error: FormParserError) -> InvalidInput:
    return InvalidInput(f"The multipart form cannot be read ({error}). Send it again (curl: -F file=@corpus.jsonl).")
