"""Reading a dataset's file: what format it is, its rows, and what is wrong with it, line by line.

Pure file reading, shared by the API (to check an upload) and the trainer (to train on it): both see the same rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict

from core.errors import Fault, InvalidInput

Format = Literal["txt", "jsonl"]
Split = Literal["blank_line", "line", "file"]

MAX_FAULTS = 20
# One line (or one document of a .txt) is held in memory; a longer one is no line but a file of another kind.
MAX_ROW_BYTES = 64 * 2**20
IGNORED_LABEL = -100
_MAX_TOKEN_ID = 2**31 - 1
_COLUMNS = ("text", "input_ids", "labels")  # what is read of a JSON row; whatever else it holds is left alone


class DataFile(BaseModel):
    """A dataset's file and how to read it. `split` says what a row of a .txt is."""

    model_config = ConfigDict(frozen=True)

    path: Path
    format: Format
    split: Split = "blank_line"


@dataclass(frozen=True)
class Row:
    """One row: its text, or its token ids with as many labels (-100: no loss on it)."""

    text: str | None = None
    input_ids: list[int] | None = None
    labels: list[int] | None = None


@dataclass
class Report:
    """What a look through a whole file found. `warnings` holds the first few rows that will be skipped.

    `largest_id` is that of all token ids and labels; None for text.
    """

    rows: int = 0
    skipped_rows: int = 0
    largest_id: int | None = None
    columns: list[str] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Line:
    number: int
    row: Row | None  # None where the row is empty and will be skipped
    columns: tuple[str, ...]


def format_of(filename: str) -> Format:
    """Tell the format from a file's name. Raises InvalidInput for one that epochd does not read."""
    suffix = Path(filename).suffix.lower()
    if suffix == ".txt":
        return "txt"
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    raise InvalidInput(f"A dataset is a .txt or a .jsonl file; {filename!r} is neither. Rename or convert it.")


def read_rows(file: DataFile) -> Iterator[Row]:
    """Yield the usable rows in order: exactly the rows that `inspect` counted.

    Raises InvalidInput where a row cannot be read; a file that passed `inspect` has none such.
    """
    for line in _lines(file):
        if isinstance(line, Fault):
            raise InvalidInput(f"{file.path.name}: {line.msg}", [line])
        if line.row is not None:
            yield line.row


def inspect(file: DataFile) -> Report:
    """Look through the whole file. Raises InvalidInput with the first faults and their lines if it is unusable."""
    report, faults = Report(), []
    for line in _lines(file):
        if isinstance(line, Fault):
            faults.append(line)
            if len(faults) == MAX_FAULTS:
                break
        elif line.row is None:
            report.skipped_rows += 1
            if len(report.warnings) < MAX_FAULTS:
                report.warnings.append({"line": line.number, "message": "empty, will be skipped"})
        else:
            report.rows += 1
            report.columns = report.columns or list(line.columns)
            for ids in filter(None, (line.row.input_ids, line.row.labels)):
                report.largest_id = max(report.largest_id or 0, *ids)
    if faults:
        raise InvalidInput("The dataset cannot be used: correct the lines named in errors and upload it again.", faults)
    if not report.rows:
        raise InvalidInput("The dataset has no usable row: the file is empty or holds only blank rows.")
    return report


def _lines(file: DataFile) -> Iterator[_Line | Fault]:
    with file.path.open("rb") as stream:
        if file.format == "jsonl":
            yield from _jsonl(stream)
        else:
            yield from _documents(stream, file.split)


def _text_lines(stream: BinaryIO) -> Iterator[tuple[int, str] | Fault]:
    """Yield numbered lines of UTF-8, or the fault that ends the reading: past it nothing can be trusted."""
    number = 0
    while raw := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(raw) > MAX_ROW_BYTES:
            yield Fault(("line", number), f"line {number} is longer than {MAX_ROW_BYTES // 2**20} MiB")
            return
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\x00" in raw:
            yield Fault(("line", number), f"line {number} holds a NUL byte: this is a binary file, not text")
            return
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield Fault(("line", number), f"line {number} is not UTF-8 (byte {error.start}): convert the file to UTF-8")
            return


def _documents(stream: BinaryIO, split: Split) -> Iterator[_Line | Fault]:
    block: list[str] = []
    start, size = 1, 0
    for line in _text_lines(stream):
        if isinstance(line, Fault):
            yield line
            return
        number, text = line
        blank = not text.strip()
        if split == "line":
            yield _Line(number, None if blank else Row(text=text.rstrip("\r\n")), ("text",))
        elif split == "blank_line" and blank:
            if block:
                yield _Line(start, Row(text="".join(block).strip("\r\n")), ("text",))
            block, size = [], 0
        else:
            if not block:
                start = number
            block.append(text)
            size += len(text)
            if size > MAX_ROW_BYTES:
                yield Fault(("line", start), f"the document at line {start} is over {MAX_ROW_BYTES // 2**20} MiB")
                return
    if block and "".join(block).strip():
        yield _Line(start, Row(text="".join(block).strip("\r\n")), ("text",))


def _jsonl(stream: BinaryIO) -> Iterator[_Line | Fault]:
    kind: str | None = None
    for line in _text_lines(stream):
        if isinstance(line, Fault):
            yield line
            return
        number, text = line
        if not text.strip():
            continue
        try:
            value = _json_object(text)
            this = "input_ids" if "input_ids" in value else "text"
            kind = kind or this
            if this != kind:
                raise ValueError(f"has {this} where the rows before have {kind}")
            row = _text_row(value) if this == "text" else _ids_row(value)
        except ValueError as error:
            yield Fault(("line", number), f"line {number} {error}")
        else:
            yield _Line(number, row, tuple(name for name in _COLUMNS if name in value))


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = pydantic_core.from_json(text.rstrip("\r\n"), allow_inf_nan=False)
    except ValueError as error:
        # The parser counts lines too, and sees but this one.
        raise ValueError(f"is not JSON: {str(error).replace('line 1 column', 'column')}") from error
    if not isinstance(value, dict):
        raise ValueError('is not a JSON object such as {"text": "…"}')
    if ("text" in value) == ("input_ids" in value):
        raise ValueError('must have either "text" or "input_ids"')
    return value


def _text_row(value: dict[str, Any]) -> Row | None:
    if not isinstance(value["text"], str):
        raise ValueError("has a text that is not a string")
    return Row(text=value["text"]) if value["text"].strip() else None


def _ids_row(value: dict[str, Any]) -> Row | None:
    ids, labels = value["input_ids"], value.get("labels", value["input_ids"])
    if not _token_ids(ids):
        raise ValueError(f"has input_ids that are not a list of whole numbers from 0 to {_MAX_TOKEN_ID}")
    if not isinstance(labels, list) or not _token_ids([n for n in labels if not _ignored(n)]):
        raise ValueError(f"has labels that are not a list of token ids or {IGNORED_LABEL}")
    if len(labels) != len(ids):
        raise ValueError(f"has {len(ids)} input_ids and {len(labels)} labels: give as many of each")
    return Row(input_ids=ids, labels=labels) if ids else None


def _ignored(label: Any) -> bool:
    return type(label) is int and label == IGNORED_LABEL  # -100.0 equals it, and is none


def _token_ids(value: Any) -> bool:
    # type() and not isinstance(): a bool is an int to Python, never to us.
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_TOKEN_ID for n in value)
