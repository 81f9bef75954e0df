"""Watching a job, or all that are live, from first to last; and what its end means for the exit status."""

import math
import time

from cli.client import Client, Unanswered
from cli.event_stream import events
from cli.job_view import JsonView, LiveView, PlainView, View
from cli.jobs_view import JobLines, JobsJson, JobsTable, JobsView
from cli.live_jobs import looks
from cli.outline import Outline
from cli.screen import can_redraw, note, out

EXIT_STATUS = {"succeeded": 0, "failed": 1, "cancelled": 2}

# The exact plan stands in the job before its first batch is told.
_ASK_FOR_PLAN_EVERY_SECONDS = 1.0


def watch(client: Client, job_id: str, *, json: bool = False) -> int:
    """Show a job's life until it ends, and return the exit status that says how it ended."""
    outline = Outline(client.get(f"/jobs/{job_id}"))
    view: View = JsonView() if json else LiveView() if can_redraw(out) else PlainView()
    asked_at, last = -math.inf, ""
    try:
        for event in events(client, job_id, view.connection_lost):
            if (
                event["type"] == "batch"
                and outline.steps is None
                and time.monotonic() - asked_at > _ASK_FOR_PLAN_EVERY_SECONDS
            ):
                outline, asked_at = _looked_up(client, outline), time.monotonic()
            view.show(event, outline)
            last = event["type"]
    finally:
        view.close()
    return EXIT_STATUS[last]


def watch_all(client: Client, *, json: bool = False) -> int:
    """Show all live jobs until none is, and return the exit status: 0 where all have succeeded, 1 where one failed, 2
    where none failed and one was cancelled.
    """
    view: JobsView = JobsJson() if json else JobsTable() if can_redraw(out) else JobLines()
    ends: set[str] = set()
    watched = False
    try:
        for look in looks(client, view.connection_lost):
            watched |= bool(look.live)
            ends |= {job["status"] for job in look.ended}
            view.show(look)
    finally:
        view.close()
    if not watched:
        note("No job is live.")
    return next((EXIT_STATUS[end] for end in ("failed", "cancelled") if end in ends), 0)


def _looked_up(client: Client, outline: Outline) -> Outline:
    try:
        return Outline(client.get(f"/jobs/{outline.id}"))
    except Unanswered:
        return outline  # the events go on without it
