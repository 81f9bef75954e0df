"""Looking through a dataset's file in its plain form: what is in it, and what is wrong with it, line by line."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from core.dataset_files import READ_BYTES, DataFile, Row, are_json_lines, lines
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
        yield from _inspecting(file, opened, max_faults, note)


def _inspecting(file: DataFile, stream: BinaryIO, max_faults: int, note: Note) -> Iterator[Report]:
    report, faults, tally = Report(), list[Fault](), Tally()
    lengths, contents = list[int](), list[int]()
    for count, line in enumerate(lines(file, stream), 1):
        if isinstance(line, Fault):
            faults.append(line)
            note(int(line.loc[-1]), line.msg)
            if len(faults) == max_faults:
                break
            continue
        number, row, columns = line
        if row is None:
            report.skipped_rows += 1
            _warn(report, note, number, _EMPTY)
        else:
            if not report.columns:
                report.columns = list(columns)
                if file.format == "txt" and are_json_lines(row.text or ""):
                    _warn(report, note, number, _NOT_SO_NAMED)
            text = row[0]
            length, content = (len(text), hash(text)) if text is not None else _measured(row, report)
            lengths.append(length)
            contents.append(content)
        if count % _LINES_AT_ONCE == 0:
            tally.add(report, lengths, contents)
            lengths, contents = [], []
            yield report
    if faults:
        raise InvalidInput("The dataset cannot be used: correct the lines named in errors and upload it again.", faults)
    tally.add(report, lengths, contents)
    if not report.rows:
        raise InvalidInput("The dataset has no usable row: the file is empty or holds only blank rows.")
    tally.tell(report)
    yield report


def _warn(report: Report, note: Note, number: int, message: str) -> None:
    note(number, message)
    if len(report.warnings) < MAX_WARNINGS:
        report.warnings.append({"line": number, "message": message})


def _measured(row: Row, report: Report) -> tuple[int, int]:
    """Return how long a row that is no text is, and the hash of what it holds."""
    if row.input_ids is not None:
        labels = row.labels or row.input_ids
        report.largest_id = max(report.largest_id or 0, *row.input_ids, *labels)
        return len(row.input_ids), hash((*row.input_ids, *(labels if labels is not row.input_ids else ())))
    if row.messages is not None:
        said = tuple((message["role"], message["content"]) for message in row.messages)
        return sum(len(content) for _, content in said), hash(said)
    whole = (row.prompt or "", row.completion or "")
    return sum(map(len, whole)), hash(whole)
