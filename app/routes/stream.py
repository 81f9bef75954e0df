"""A job's log over a WebSocket: what came after the cursor, then what happens, until the log ends; and its tickets."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress

from fastapi import APIRouter, Response, WebSocket, WebSocketDisconnect

from app.dependencies import After, JobId, Reader, StreamedJob, TheFeeds, TheWatchers, Work
from app.live import Entry, Feed
from app.openapi import problems
from app.schemas import StreamTicket
from core import job_queries, tickets
from core.events import Cursor

router = APIRouter(tags=["watching"])

# A send that takes longer has a watcher behind it that cannot keep up. The close frame that says so has to wait for
# the same buffers, and gets its own time.
SEND_SECONDS = 10.0
CLOSE_SECONDS = 10.0
_PAGE_EVENTS = 500
# Clients commonly refuse messages over 1 MiB.
_MESSAGE_CHARACTERS = 64 * 2**10

_END_OF_LOG, _KEY_ENDED, _GOING_AWAY, _TOO_SLOW = 1000, 1008, 1012, 1013


@router.post(
    "/jobs/{job_id}/stream-ticket",
    operation_id="create_stream_ticket",
    summary="Get a ticket that opens the job's WebSocket once, within a minute, without a key",
    responses=problems(404),
)
def ticket(response: Response, caller: Reader, work: Work, job_id: JobId) -> StreamTicket:
    """Return a ticket for `/jobs/{job_id}/stream?ticket=`: a browser can send no key there."""
    with work.begin() as session:
        job_queries.get(session, caller.sees, job_id)
        made, expires_at = tickets.issue(session, caller, job_id)
    response.headers["Cache-Control"] = "no-store"
    return StreamTicket(ticket=made, expires_at=expires_at)


@router.websocket("/jobs/{job_id}/stream")
async def stream(socket: WebSocket, watched: StreamedJob, feeds: TheFeeds, watchers: TheWatchers, after: After) -> None:
    """Send every event behind `after`, one JSON object per line, several to a message where they wait."""
    watchers.require_seat(watched.key_id)
    await socket.accept()
    with watchers.seat(watched.key_id) as gone:
        async with feeds.watch(watched.job_id, watched.newest) as feed:
            following = asyncio.create_task(_follow(socket, feed, after))
            expiring = asyncio.create_task(_until_key_ends(gone))
            leaving = asyncio.create_task(_until_gone(socket))
            done, pending = await asyncio.wait((following, expiring, leaving), return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
    for ended in (following, expiring):
        if ended in done:
            with suppress(WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await socket.close(ended.result())
            return


async def _follow(socket: WebSocket, feed: Feed, cursor: Cursor) -> int:
    """Send until the log ends or nothing more can be sent, and return the code to close with."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as patience:
            while True:
                entries, done = await feed.after(cursor, limit=_PAGE_EVENTS)
                for message in _messages(entries):
                    patience.reschedule(loop.time() + SEND_SECONDS)
                    await socket.send_text(message)
                patience.reschedule(None)
                if done:
                    return _END_OF_LOG
                if feed.closed:
                    return _GOING_AWAY
                cursor = entries[-1].cursor if entries else cursor
    except TimeoutError:
        return _TOO_SLOW


async def _until_key_ends(gone: asyncio.Event) -> int:
    """Return the code to close with when the key opens nothing any more."""
    await gone.wait()
    return _KEY_ENDED


async def _until_gone(socket: WebSocket) -> None:
    """Return when the client has closed; what it says is of no interest."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _messages(entries: Sequence[Entry]) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for entry in entries:
        if lines and size + len(entry.line) > _MESSAGE_CHARACTERS:
            yield "\n".join(lines)
            lines, size = [], 0
        lines.append(entry.line)
        size += len(entry.line) + 1
    if lines:
        yield "\n".join(lines)
