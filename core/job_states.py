"""The states of a job and the words for what is asked of a running one."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is. `core/jobs.py` holds every legal move between these."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Where a job stays, unless its owner asks for a retry.
TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
LIVE = frozenset(JobStatus) - TERMINAL


class StopRequest(StrEnum):
    """What a client asked of a running job; it stands in `stop_requested` until the trainer has answered."""

    CANCEL = "cancel"
    PAUSE = "pause"
