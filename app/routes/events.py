"""A job's log by polling; with `wait` the answer is held until there is something new."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.dependencies import After, TheFeeds, WatchedJob
from app.openapi import problems
from app.schemas import EventPage

router = APIRouter(tags=["watching"])


@router.get(
    "/jobs/{job_id}/events",
    operation_id="poll_events",
    summary="Read a job's events behind a cursor",
    response_model=EventPage,
    responses=problems(404),
)
async def poll(
    watched: WatchedJob,
    feeds: TheFeeds,
    after: After,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds")] = 0.0,
) -> Response:
    """Return the events behind `after`, each exactly as the WebSocket `/jobs/{job_id}/stream?after=` sends it."""
    async with feeds.watch(watched.job_id, watched.newest) as feed:
        entries, done = await feed.after(after, limit=limit, wait=wait)
    last = entries[-1].cursor if entries else after
    lines = ",".join(entry.line for entry in entries)
    body = f'{{"events":[{lines}],"next_after":"{last}","done":{"true" if done else "false"}}}'
    return Response(body, media_type="application/json")
