"""The moves of a job as `docs/states.md` draws them: which one may follow which, by the events that tell of them."""

LEGAL = {
    "submitted": {"started", "paused", "cancelled"},
    "started": {"succeeded", "failed", "cancelled", "paused", "requeued"},
    "requeued": {"started", "paused", "cancelled"},
    "paused": {"resumed", "cancelled"},
    "resumed": {"started", "paused", "cancelled"},
    "failed": {"requeued"},
    "cancelled": {"requeued"},
}
