"""A job's log by polling, where `wait` holds the answer until there is something new, and as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from app.dependencies import ResumedAfter, TheFeeds, Watched, WatchedJob
from app.live import Entry, Feeds
from app.openapi import problems
from app.schemas import EventPage
from core.events import Cursor

router = APIRouter(tags=["watching"])

_SSE = "text/event-stream"
_PAGE_EVENTS = 500
# Proxies give up on an answer that says nothing, many after a minute.
_SIGN_OF_LIFE_SECONDS = 15.0
_SSE_HEADERS = {"Cache-Control": "no-store", "Vary": "Accept", "X-Accel-Buffering": "no"}


@router.get(
    "/jobs/{job_id}/events",
    operation_id="poll_events",
    summary="Read a job's events behind a cursor, or with `Accept: text/event-stream` follow them to the end",
    response_model=EventPage,
    responses={
        200: {"content": {_SSE: {"schema": {"type": "string"}}}},
        204: {"description": "Server-sent events: nothing will ever follow the cursor."},
        **problems(404),
    },
)
async def poll(
    watched: WatchedJob,
    feeds: TheFeeds,
    after: ResumedAfter,
    *,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds")] = 0.0,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Return the events behind `after`, each exactly as the WebSocket `/jobs/{job_id}/stream?after=` sends it."""
    if _wants_sse(accept):
        return await _sse(watched, feeds, after)
    async with feeds.watch(watched.job_id, watched.newest) as feed:
        entries, done = await feed.after(after, limit=limit, wait=wait)
    last = entries[-1].cursor if entries else after
    lines = ",".join(entry.line for entry in entries)
    body = f'{{"events":[{lines}],"next_after":"{last}","done":{"true" if done else "false"}}}'
    return Response(body, media_type="application/json", headers={"Vary": "Accept"})


def _wants_sse(accept: str) -> bool:
    return any(part.partition(";")[0].strip().lower() == _SSE for part in accept.split(","))


async def _sse(watched: Watched, feeds: Feeds, after: Cursor) -> Response:
    async with feeds.watch(watched.job_id, watched.newest) as feed:
        entries, done = await feed.after(after, limit=1, wait=0)
    if done and not entries:
        # A browser reconnects at the end of every answer; this one tells it not to.
        return Response(status_code=204, headers=_SSE_HEADERS)
    return StreamingResponse(_messages(watched, feeds, after), media_type=_SSE, headers=_SSE_HEADERS)


async def _messages(watched: Watched, feeds: Feeds, cursor: Cursor) -> AsyncIterator[str]:
    """Yield messages until the log ends or the process does: who was let go so comes back with its last id."""
    async with feeds.watch(watched.job_id, watched.newest) as feed:
        while True:
            entries, done = await feed.after(cursor, limit=_PAGE_EVENTS, wait=_SIGN_OF_LIFE_SECONDS)
            yield "".join(map(_message, entries)) or ":\n\n"
            if done or feed.closed:
                return
            cursor = entries[-1].cursor if entries else cursor


def _message(entry: Entry) -> str:
    # An event is one line of JSON, in which line ends are escaped.
    return f"id: {entry.cursor}\nevent: {entry.type}\ndata: {entry.line}\n\n"
