"""A job's log over a WebSocket: who may open it, and tickets for those who can send no key."""

from fastapi import APIRouter, Response, WebSocket

from app.dependencies import After, JobId, Reader, StreamedJob, TheResources, Work
from app.following import Following, follow_after_handshake
from app.openapi import problems
from app.schemas import StreamTicket
from core import job_queries, tickets

router = APIRouter(tags=["watching"])


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
async def stream(socket: WebSocket, watched: StreamedJob, resources: TheResources, after: After) -> None:
    """Accept a watcher, whom every event behind `after` is sent to from then on."""
    resources.watchers.require_seat(watched.key_id)
    await socket.accept()
    follow_after_handshake(socket.scope, Following(**vars(watched), after=after, resources=resources))
