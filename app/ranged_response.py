"""An answer of fixed bytes from files and memory: whole or one range of it, told apart by a strong ETag."""

import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import problem
from app.zero_copy_protocol import EXTENSION
from core.errors import Corrupt, NotFound

# The list was read a moment ago, or its store is of an older backup than its database.
FILES_GONE = "The checkpoint's files are gone: retention has just removed them, or the store has lost them."

# What is counted as sent before it is; and what is read at once where it has to be.
_PART_BYTES, _CHUNK_BYTES = 2**23, 2**20
_RANGE = re.compile(r"bytes=(\d{0,30})-(\d{0,30})", re.ASCII)


@dataclass(frozen=True)
class FileSegment:
    """A whole file of a known size."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size


Segment = bytes | FileSegment


@dataclass(frozen=True)
class _Part:
    """Some bytes of an open file, as the extension names them."""

    file: int
    offset: int
    count: int


class RangedResponse(StreamingResponse):
    """Segments one after the other, in answer to GET or HEAD, with `Range`, `If-Range` and `If-None-Match`."""

    def __init__(
        self, segments: Sequence[Segment], *, sha256: str, media_type: str, filename: str, immutable: bool
    ) -> None:
        super().__init__((), media_type=media_type)
        self._segments = segments
        self._parts: Iterable[bytes | _Part] = ()
        self._zero_copy = False
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
            self._parts = () if scope["method"] == "HEAD" else _parts(self._segments, streams, start, end)
            self._zero_copy = EXTENSION in scope.get("extensions", {})
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the head and every part. Raises Corrupt where a file became shorter meanwhile."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            if isinstance(part, bytes):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            elif self._zero_copy:
                await send({"type": EXTENSION, **asdict(part), "more_body": True})
            else:
                async for chunk in _read(part):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

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


def _parts(segments: Sequence[Segment], streams: dict[Path, BinaryIO], start: int, end: int) -> Iterator[bytes | _Part]:
    """Yield what of each segment lies between two places of the whole."""
    place = 0
    for segment in segments:
        here, stop = max(start - place, 0), min(end - place, len(segment))
        place += len(segment)
        if here >= stop:
            continue
        if isinstance(segment, bytes):
            yield segment[here:stop]
        else:
            file = streams[segment.path].fileno()
            for offset in range(here, stop, _PART_BYTES):
                yield _Part(file, offset, min(_PART_BYTES, stop - offset))


async def _read(part: _Part) -> AsyncIterator[bytes]:
    place, end = part.offset, part.offset + part.count
    while place < end:
        chunk = await anyio.to_thread.run_sync(os.pread, part.file, min(_CHUNK_BYTES, end - place), place)
        if not chunk:
            raise Corrupt("a file became shorter while it was read")
        place += len(chunk)
        yield chunk
