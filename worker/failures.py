"""Why a job was lost or failed, in words for the person who meets it."""

import errno
import signal

from core.jobs import JobError
from worker.training.facts import Failed

WORKER_LOST = JobError(
    "worker_lost",
    "The worker that ran the job is gone: it was killed, or its machine was lost.",
    "Look at the worker's log and at the machine's memory. A job survives `max_failures` - 1 losses in a row without a "
    "new checkpoint: with checkpoints.every_steps they come more often.",
)


def of_fact(fact: Failed) -> JobError:
    """Return what the trainer itself said."""
    return JobError(fact.code, fact.message, fact.hint)


def of_exit(returncode: int) -> JobError:
    """Return what a trainer's exit without a last word means; a negative code is the signal that ended it."""
    if returncode == -signal.SIGKILL:
        return JobError(
            "worker_lost",
            "The trainer was killed (SIGKILL), as the kernel does when the machine runs out of memory.",
            "If memory was short, lower training.batch_size or sequence.max_length, or make the model smaller.",
        )
    if returncode < 0:
        return JobError(
            "worker_lost",
            f"The trainer was ended by {signal.Signals(-returncode).name}.",
            "Look at what the trainer wrote before: `epochd logs`, or `GET /jobs/{id}/logs`.",
        )
    return JobError(
        "internal",
        f"The trainer exited with status {returncode} and without a last word.",
        "Look at what the trainer wrote before (`epochd logs`, or `GET /jobs/{id}/logs`); report it if it is a defect.",
    )


def of_silence(seconds: float) -> JobError:
    """Return what a hung trainer means."""
    return JobError(
        "worker_lost",
        f"The trainer said nothing for {seconds:.0f} s and was killed.",
        "If one batch may take that long, raise EPOCHD_STALL_SECONDS; else look at the worker's log.",
    )


def of_exception(error: Exception) -> JobError:
    """Return what an error on the supervisor's side of the job means."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobError(
            "disk_full",
            "The disk filled up while a checkpoint was being published. The earlier checkpoints are intact.",
            "Free some space (delete jobs that are no longer needed), then retry the job: it goes on from its last "
            "checkpoint.",
        )
    return JobError("internal", f"{type(error).__name__}: {error}", "Look at the worker's log, and report it.")
