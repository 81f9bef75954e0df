"""What ends a run, in the trainer's own terms, and how any exception becomes the `failed` fact.

TrainingError         (beside core's DataError and InvalidInput: what is wrong with the data)
├── DoesNotFit        one single row does not fit into memory
├── DiskFull          the next checkpoint does not fit on the disk
└── Diverged          the weights left, or would have left, the finite numbers
"""

import errno
from typing import ClassVar, Literal

import torch

from core.errors import DataError, InvalidInput
from worker.training.facts import Failed

Code = Literal["out_of_memory", "diverged", "data", "disk_full", "internal"]

MEMORY_HINT = (
    "Lower training.batch_size (raise gradient_accumulation_steps to keep the window), sequence.max_length "
    "or the size of the model."
)
DISK_HINT = (
    "Free space on the disk of the store (delete jobs that are no longer needed), then retry the job: it goes on from "
    "its last checkpoint."
)


class TrainingError(Exception):
    """The run cannot go on, and would fail again; `hint` says what the user can do about it."""

    code: ClassVar[Code] = "internal"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class DoesNotFit(TrainingError):
    """One single row does not fit into memory."""

    code = "out_of_memory"


class DiskFull(TrainingError):
    """The next checkpoint does not fit on the disk."""

    code = "disk_full"


class Diverged(TrainingError):
    """The weights left, or would have left, the finite numbers."""

    code = "diverged"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the allocator said no. The CPU's says so in a RuntimeError, by its text alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _is_disk_full(error: BaseException) -> bool:
    # safetensors reports the system's error as text in an exception of its own.
    return getattr(error, "errno", None) == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error)


def as_failed(error: BaseException) -> Failed:
    """Return the fact that says why the run ended, for any exception."""
    if isinstance(error, TrainingError):
        return Failed(code=error.code, message=str(error), hint=error.hint)
    if isinstance(error, DataError):
        return Failed(code="data", message=error.detail, hint=error.hint)
    if isinstance(error, InvalidInput):
        return Failed(code="data", message=error.detail, hint="Correct the dataset, upload it and submit a new job.")
    if is_out_of_memory(error):
        return Failed(
            code="out_of_memory",
            message=f"Out of memory: {_first_line(error) or type(error).__name__}",
            hint=MEMORY_HINT,
        )
    if _is_disk_full(error):
        return Failed(code="disk_full", message=f"The disk is full: {_first_line(error)}", hint=DISK_HINT)
    message = f"{type(error).__name__}: {_first_line(error)}"
    return Failed(
        code="internal", message=message, hint="This is a defect of epochd: report it with what `epochd logs` shows."
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:500]
