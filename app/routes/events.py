"""A job's log by polling, where `wait` holds the answer until there is something new, and as server-sent events."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Response
from pydantic import StringConstraints
from starlette.responses import StreamingResponse

from app.dependencies import ResumedAfter, TheFeeds, TheWatchers, Watched, WatchedJob, Work
from app.live import Entry, Feeds
from app.openapi import problems
from app.schemas import EventPage
from app.watchers import Watchers
from core import events
from core.events import Cursor
from core.unit_of_work import UnitOfWork

router = APIRouter(tags=["watching"])

_SSE = "text/event-stream"
_Type = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,30}$")]
_PAGE_EVENTS = 500
# Proxies give up on an answer that says nothing, many after a minute.
SIGN_OF_LIFE_SECONDS = 15.0
_SSE_HEADERS = {"Cache-Control": "no-store", "Vary": "Accept", "X-Accel-Buffering": "no"}


@router.get(
    "/jobs/{job_id}/events",
    operation_id="poll_events",
    summary="Read a job's events behind a cursor, or with `Accept: text/event-stream` follow them to the end",
    response_model=EventPage,
    responses={
        200: {"content": {_SSE: {"schema": {"type": "string"}}}},
        204: {"description": "Server-sent events: nothing will ever follow the cursor."},
        **problems(404, 429),
    },
)
async def poll(
    watched: WatchedJob,
    feeds: TheFeeds,
    watchers: TheWatchers,
    work: Work,
    after: ResumedAfter,
    *,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds")] = 0.0,
    type: Annotated[
        list[_Type] | None, Query(max_length=20, description="only such events, of the log so far; repeatable")
    ] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Return the events behind `after`, each exactly as the WebSocket `/jobs/{job_id}/stream?after=` sends it."""
    if type:
        return await anyio.to_thread.run_sync(_so_far, work, watched, after, limit, type)
    if _wants_sse(accept):
        return await _sse(watched, feeds, watchers, after)
    if wait:
        watchers.require_seat(watched.key_id)
    with watchers.seat(watched.key_id) if wait else nullcontext():
        return await _poll(watched, feeds, after, limit, wait)


async def _poll(watched: Watched, feeds: Feeds, after: Cursor, limit: int, wait: float) -> Response:
    with feeds.watch(watched.job_id, watched.newest) as feed:
        entries, done = await feed.after(after, limit=limit, wait=wait)
    return _page([entry.line for entry in entries], entries[-1].cursor if entries else after, done)


def _page(lines: list[str], last: Cursor, done: bool) -> Response:
    body = f'{{"events":[{",".join(lines)}],"next_after":"{last}","done":{"true" if done else "false"}}}'
    return Response(body, media_type="application/json", headers={"Vary": "Accept"})


def _so_far(work: UnitOfWork, watched: Watched, after: Cursor, limit: int, types: list[str]) -> Response:
    with work.reading() as session:
        found = events.read(session, watched.job_id, after, limit, types)
    ended = watched.newest is not None and watched.newest.terminal
    last = found[-1].cursor if found else after
    return _page([event.to_json() for event in found], last, done=ended and len(found) < limit)


def _wants_sse(accept: str) -> bool:
    return any(part.partition(";")[0].strip().lower() == _SSE for part in accept.split(","))


async def _sse(watched: Watched, feeds: Feeds, watchers: Watchers, after: Cursor) -> Response:
    with feeds.watch(watched.job_id, watched.newest) as feed:
        entries, done = await feed.after(after, limit=1, wait=0)
    if done and not entries:
        # A browser reconnects at the end of every answer; this one tells it not to.
        return Response(status_code=204, headers=_SSE_HEADERS)
    watchers.require_seat(watched.key_id)
    return StreamingResponse(_messages(watched, feeds, watchers, after), media_type=_SSE, headers=_SSE_HEADERS)


async def _messages(watched: Watched, feeds: Feeds, watchers: Watchers, cursor: Cursor) -> AsyncIterator[str]:
    """Yield messages until the log, the process or the key ends: who was let go comes back with its last id."""
    with watchers.seat(watched.key_id) as seat, feeds.watch(watched.job_id, watched.newest) as feed:
        while True:
            entries, done = await feed.after(cursor, limit=_PAGE_EVENTS, wait=SIGN_OF_LIFE_SECONDS)
            yield "".join(map(_message, entries)) or ":\n\n"
            if done or feed.closed or seat.gone:
                return
            cursor = entries[-1].cursor if entries else cursor


def _message(entry: Entry) -> str:
    # An event is one line of JSON, in which line ends are escaped.
    return f"id: {entry.cursor}\nevent: {entry.type}\ndata: {entry.line}\n\n"
