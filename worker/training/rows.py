"""A dataset's file as the trainer reads it: rows, and the pieces of text that a tokenizer reads one by one."""

import hashlib
import time
from collections.abc import Generator, Iterator
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerFast

from core.dataset_files import DataFile, Known, Row, inspecting, read_rows
from core.errors import Corrupt
from worker.training import chat
from worker.training.errors import DataError
from worker.training.facts import Preparing
from worker.training.tokenizer import parts

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


class Piece(NamedTuple):
    """A text that is tokenized by itself. One that `continues` is not the first of its row.

    Behind the last piece of a row comes the end of text, unless the piece `brings_end` itself.
    """

    text: str
    carries_loss: bool = True
    continues: bool = False
    ends_row: bool = True
    brings_end: bool = False


def pieces(row: Row, tokenizer: PreTrainedTokenizerFast, *, where: str) -> Iterator[Piece]:
    """Cut a row of text, a completion or a conversation into its pieces, none too long to be encoded at once.

    `where` names the row in the DataError that is raised where a conversation cannot be rendered.
    """
    if row.messages is not None:
        spans = chat.spans(tokenizer, row.messages, where=where)
    elif row.prompt is not None and row.completion is not None:
        # Not tokenized together: when the model is used, the prompt is encoded before there is a completion.
        spans = [(row.prompt, False), (row.completion, True)]
    else:
        spans = [(row.text or "", True)]
    cut = [(part, carries_loss) for text, carries_loss in spans for part in parts(text)]
    # Templates put a newline behind the end of what the assistant says.
    last = spans[-1][0] if row.messages is None else spans[-1][0].rstrip()
    brings_end = last.endswith(str(tokenizer.eos_token))
    for place, (text, carries_loss) in enumerate(cut):
        ends_row = place == len(cut) - 1
        yield Piece(text, carries_loss, place > 0, ends_row, ends_row and brings_end)
