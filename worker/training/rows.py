"""A dataset's file as the trainer reads it: looked through once, and row by row."""

import hashlib
import time
from collections.abc import Generator, Iterator
from typing import Literal

from core.dataset_files import DataFile, Known, Row, read_rows
from core.dataset_look import inspecting
from core.errors import Corrupt, DataError
from worker.training.facts import Preparing

# With what may lie between two looks at the clock: twice a second, and so often is a stop order heard.
_SECONDS_BETWEEN_FACTS = 0.4
_HASHED_AT_ONCE = 2**24


class Progress:
    """Tells how far a phase is, twice a second."""

    def __init__(self, phase: Literal["tokenizer", "tokens"]) -> None:
        self._phase: Literal["tokenizer", "tokens"] = phase
        self._told_at = time.monotonic()

    def tell(self, done: int, total: int) -> Iterator[Preparing]:
        """Tell it, if that was not done lately."""
        if time.monotonic() - self._told_at >= _SECONDS_BETWEEN_FACTS:
            self._told_at = time.monotonic()
            yield Preparing(phase=self._phase, done=done, total=total)


def look_through(file: DataFile) -> Generator[Preparing, None, Known]:
    """Return what is known of a file. Only where nobody has looked through it yet, this does.

    Raises InvalidInput with the first faults and their lines if it is unusable.
    """
    if file.known is not None:
        return file.known
    progress = Progress("tokens")
    for report in inspecting(file):
        yield from progress.tell(0, report.rows)
    digest = hashlib.sha256()
    with file.path.open("rb") as stream:
        while block := stream.read(_HASHED_AT_ONCE):
            digest.update(block)
            yield from progress.tell(0, report.rows)
    return Known(
        bytes=file.path.stat().st_size,
        sha256=digest.hexdigest(),
        rows=report.rows,
        skipped_rows=report.skipped_rows,
        columns=tuple(report.columns),
    )


def rows_of(file: DataFile) -> Iterator[Row]:
    """Yield the usable rows. Raises InvalidInput for a row that cannot be read, DataError for a damaged file."""
    try:
        yield from read_rows(file)
    except Corrupt as error:
        raise DataError(f"{error.detail}.", "Upload the dataset again, and submit the job again.") from error
