"""Watching a job from its first event to its last, and what its end means for the exit status."""

import math
import time

from cli.client import Client
from cli.event_stream import events
from cli.job_view import LiveView, PlainView, View
from cli.outline import Outline
from cli.screen import out

EXIT_STATUS = {"succeeded": 0, "failed": 1, "cancelled": 2}

# The exact plan stands in the job before its first batch is told.
_ASK_FOR_PLAN_EVERY_SECONDS = 1.0


def watch(client: Client, job_id: str) -> int:
    """Show a job's life until it ends, and return the exit status that says how it ended."""
    outline = Outline(client.get(f"/jobs/{job_id}"))
    view: View = LiveView() if out.is_terminal else PlainView()
    asked_at, last = -math.inf, ""
    try:
        for event in events(client, job_id, view.connection_lost):
            if (
                event["type"] == "batch"
                and outline.steps is None
                and time.monotonic() - asked_at > _ASK_FOR_PLAN_EVERY_SECONDS
            ):
                outline, asked_at = Outline(client.get(f"/jobs/{job_id}")), time.monotonic()
            view.show(event, outline)
            last = event["type"]
    finally:
        view.close()
    return EXIT_STATUS[last]
