"""An answer of fixed bytes from files and memory: whole or one range of it, told apart by a strong ETag."""

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio.lowlevel
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import problem
from core.errors import Corrupt, NotFound

# The list was read a moment ago, or its store is of an older backup than its database.
FILES_GONE = "The checkpoint's files are gone: retention has just removed them, or the store has lost them."

# Small enough to stay in a cache from the read to the send, and for 50 downloads at once.
_CHUNK_BYTES = 2**19
# What the disk has to be asked for, in another thread, comes in larger pieces: a change of threads costs more.
_DISK_BYTES = 2**20
# Of Linux: read what is in memory already, or fail at once.
_NOWAIT = getattr(os, "RWF_NOWAIT", None)
_RANGE = re.compile(r"bytes=(\d{0,30})-(\d{0,30})", re.ASCII)


@dataclass(frozen=True)
class FileSegment:
    """A whole file of a known size."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size


Segment = bytes | FileSegment


class RangedResponse(StreamingResponse):
    """Segments one after the other, in answer to GET or HEAD, with `Range`, `If-Range` and `If-None-Match`."""

    def __init__(
        self, segments: Sequence[Segment], *, sha256: str, media_type: str, filename: str, immutable: bool
    ) -> None:
        super().__init__(_nothing(), media_type=media_type)
        self._segments = segments
        self._total = sum(map(len, segments))
        self._etag = f'"{sha256}"'
        # Only an address that names the bytes themselves gives the same ones for good.
        cache = "max-age=31536000, immutable" if immutable else "no-cache"
        self.headers.update(
            {
                "ETag": self._etag,
                "Accept-Ranges": "bytes",
                "Cache-Control": f"private, no-transform, {cache}",
                "Content-Disposition": f'attachment; filename="{filename}"',
                "Content-Length": str(self._total),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises NotFound, before anything is sent, where the files have gone meanwhile."""
        asked = Headers(scope=scope)
        if self._unchanged(asked.get("if-none-match", "")):
            kept = {name: self.headers[name] for name in ("ETag", "Cache-Control")}
            return await Response(status_code=304, headers=kept)(scope, receive, send)
        with ExitStack() as stack:
            streams = await anyio.to_thread.run_sync(_open, self._segments, stack)
            start, end = 0, self._total
            if scope["method"] == "GET" and (wanted := self._range(asked)):
                start, end = wanted
                if start >= self._total:
                    detail = f"The range starts behind the end: there are {self._total} bytes."
                    unsatisfied = problem(416, detail, headers={"Content-Range": f"bytes */{self._total}"})
                    return await unsatisfied(scope, receive, send)
                self.status_code = 206
                self.headers["Content-Length"] = str(end - start)
                self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{self._total}"
            self.body_iterator = _nothing() if scope["method"] == "HEAD" else _read(self._segments, streams, start, end)
            await super().__call__(scope, receive, send)

    def _unchanged(self, if_none_match: str) -> bool:
        known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return self._etag in known or known == ["*"]

    def _range(self, asked: Headers) -> tuple[int, int] | None:
        """Return the one range asked for, its start behind the end where it cannot be had.

        None, for the whole, where there are several, one that makes no sense, or one of other bytes than these.
        """
        match = _RANGE.fullmatch(asked.get("range", "").replace(" ", ""))
        if not match or asked.get("if-range", self._etag) != self._etag:
            return None
        first, last = match.groups()
        if not first:
            return (max(0, self._total - int(last)), self._total) if last else None
        if last and int(last) < int(first):
            return None
        return int(first), min(int(last) + 1, self._total) if last else self._total


def _open(segments: Sequence[Segment], stack: ExitStack) -> dict[Path, BinaryIO]:
    # All before the first byte goes out: once open, retention may delete a file without an effect on this answer.
    streams: dict[Path, BinaryIO] = {}
    for segment in segments:
        if isinstance(segment, FileSegment):
            try:
                stream = streams[segment.path] = stack.enter_context(segment.path.open("rb"))
            except FileNotFoundError as error:
                raise NotFound(FILES_GONE) from error
            if os.fstat(stream.fileno()).st_size != segment.size:
                raise Corrupt(f"{segment.path} is not of the size recorded for it")
    return streams


async def _read(
    segments: Sequence[Segment], streams: dict[Path, BinaryIO], start: int, end: int
) -> AsyncIterator[bytes]:
    place, buffer = 0, memoryview(bytearray(_CHUNK_BYTES))
    for segment in segments:
        here, stop = max(start - place, 0), min(end - place, len(segment))
        place += len(segment)
        if isinstance(segment, bytes):
            if here < stop:
                yield segment[here:stop]
            continue
        while here < stop:
            descriptor = streams[segment.path].fileno()
            chunk = _from_memory(descriptor, buffer[: stop - here], here)
            if chunk is None:
                chunk = await anyio.to_thread.run_sync(os.pread, descriptor, min(_DISK_BYTES, stop - here), here)
            else:
                await anyio.lowlevel.checkpoint()  # it is others' turn too
            if not chunk:
                raise Corrupt(f"{segment.path} became shorter while it was read")
            here += len(chunk)
            yield chunk


def _from_memory(descriptor: int, buffer: memoryview, place: int) -> bytes | None:
    """Return some of a file at this place where it need not be waited for, else None."""
    if _NOWAIT is None:
        return None
    try:
        size = os.preadv(descriptor, [buffer], place, _NOWAIT)
    except OSError:  # not in memory; or a file system that cannot say
        return None
    return bytes(buffer[:size])


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
