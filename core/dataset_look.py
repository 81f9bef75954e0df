"""Looking through a dataset's file in its plain form: what is in it, and what is wrong with it, line by line."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from core.dataset_files import READ_BYTES, DataFile, Line, Row, Texts, are_json_lines, blocks
from core.dataset_report import MAX_WARNINGS, Report, Tally
from core.errors import Fault, InvalidInput

MAX_FAULTS = 20
_LINES_AT_ONCE = 1000
_EMPTY = "empty, will be skipped"
_NOT_SO_NAMED = "looks like JSON lines, and is read as text: name the file .jsonl to have each line read as a row"

Note = Callable[[int, str], None]


def inspect(file: DataFile) -> Report:
    """Look through the whole file. Raises InvalidInput with the first faults and their lines if it is unusable."""
    report = Report()
    for report in inspecting(file):  # noqa: B007 - the last one is the whole
        pass
    return report


def inspecting(
    file: DataFile,
    *,
    stream: BinaryIO | None = None,
    max_faults: int = MAX_FAULTS,
    note: Note = lambda *_: None,
) -> Iterator[Report]:
    """Do what `inspect` does, and yield the report under way every thousand lines, then whole.

    The file's bytes come from `stream`, if they do not come from its path. `note` is told the line and the sentence of
    everything that is found, also where the report has no room for it.
    """
    with stream or file.path.open("rb", buffering=READ_BYTES) as opened:
        yield from _Look(file, note).through(opened, max_faults)


class _Look:
    """A look that is under way: what was found so far, and what is still to be counted of the last rows."""

    def __init__(self, file: DataFile, note: Note) -> None:
        self._file, self._note = file, note
        self._report, self._tally, self._faults = Report(), Tally(), list[Fault]()
        self._lengths, self._contents = list[int](), list[int]()

    def through(self, stream: BinaryIO, max_faults: int) -> Iterator[Report]:
        seen = 0
        for found in blocks(self._file, stream):
            if isinstance(found, Texts):
                self._lengths += map(len, found.texts)
                self._contents += map(hash, found.texts)
                seen += len(found.texts)
            else:
                self._take(found)
                seen += 1
            if len(self._faults) == max_faults:
                break
            if seen >= _LINES_AT_ONCE:
                seen = 0
                yield self._counted()
        if self._faults:
            raise InvalidInput(
                "The dataset cannot be used: correct the lines named in errors and upload it again.", self._faults
            )
        report = self._counted()
        if not report.rows:
            raise InvalidInput("The dataset has no usable row: the file is empty or holds only blank rows.")
        self._tally.tell(report)
        yield report

    def _counted(self) -> Report:
        self._tally.add(self._report, self._lengths, self._contents)
        self._lengths, self._contents = [], []
        return self._report

    def _take(self, found: Line | Fault) -> None:
        if isinstance(found, Fault):
            self._faults.append(found)
            self._note(int(found.loc[-1]), found.msg)
            return
        number, row, columns = found
        if row is None:
            self._report.skipped_rows += 1
            self._warn(number, _EMPTY)
            return
        if not self._report.columns:
            self._report.columns = list(columns)
            if self._file.format == "txt" and are_json_lines(row.text or ""):
                self._warn(number, _NOT_SO_NAMED)
        length, content = _measured(row, self._report)
        self._lengths.append(length)
        self._contents.append(content)

    def _warn(self, number: int, message: str) -> None:
        self._note(number, message)
        if len(self._report.warnings) < MAX_WARNINGS:
            self._report.warnings.append({"line": number, "message": message})


def _measured(row: Row, report: Report) -> tuple[int, int]:
    """Return how long a row is, and the hash of what it holds."""
    if row.text is not None:
        return len(row.text), hash(row.text)
    if row.input_ids is not None:
        labels = row.labels or row.input_ids
        report.largest_id = max(report.largest_id or 0, *row.input_ids, *labels)
        return len(row.input_ids), hash((*row.input_ids, *(labels if labels is not row.input_ids else ())))
    if row.messages is not None:
        said = tuple((message["role"], message["content"]) for message in row.messages)
        return sum(len(content) for _, content in said), hash(said)
    whole = (row.prompt or "", row.completion or "")
    return sum(map(len, whole)), hash(whole)
