"""What can go wrong in epochd's own terms. HTTP statuses live in `app/errors.py` alone.

EpochdError
├── InvalidInput          what the client sent cannot be used
│   ├── DataError         the data, or what the spec asks of it, cannot be trained on
│   └── UnusableFile      an uploaded file has more faults than an answer tells
├── NotFound              no such thing, or not this owner's
├── Conflict              legal in another state
├── TooLarge              over a limit of this server
├── FenceLost             another claim owns the job now: stop, write nothing more
├── CancelRequested       a cancel was accepted before this end of the job
├── Corrupt               stored bytes do not match their hash
└── Unusable              the installation or its settings: says what to do
"""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input: where (`loc`, e.g. `["training", "epochs"]` or `["line", 17]`) and what."""

    loc: tuple[str | int, ...]
    msg: str


class EpochdError(Exception):
    """Base of all errors that epochd raises on purpose. The message says what to do about it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(EpochdError):
    """What the client sent cannot be used; `faults` says where and why."""

    def __init__(self, detail: str, faults: list[Fault] | None = None) -> None:
        super().__init__(detail)
        self.faults = faults or []

    @classmethod
    def at(cls, loc: tuple[str | int, ...], msg: str) -> Self:
        """An input with one thing wrong."""
        return cls(msg, [Fault(loc, msg)])


class DataError(InvalidInput):
    """The data, or what the spec asks of it, cannot be trained on; `hint` says what the user can do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class UnusableFile(InvalidInput):
    """An uploaded file has more faults than an answer tells; `report_url` is where all of them are, for a day."""

    def __init__(self, detail: str, faults: list[Fault], report_url: str) -> None:
        super().__init__(detail, faults)
        self.report_url = report_url


class NotFound(EpochdError):
    """No such thing, or it belongs to another owner: the two cannot be told apart."""


class Conflict(EpochdError):
    """The request is legal in another state of the thing."""


class TooLarge(EpochdError):
    """Over a limit of this server; the message names the limit."""


class FenceLost(EpochdError):
    """The job was claimed, requeued or ended by someone else: its former holder must write nothing more."""


class CancelRequested(EpochdError):
    """The job cannot end as asked, because a cancel was accepted first."""


class Corrupt(EpochdError):
    """Stored bytes do not match the hash recorded for them."""


class Unusable(EpochdError):
    """This installation cannot run as it is set up; the message says how to mend it."""
