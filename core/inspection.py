"""Looking through an upload: brought into its plain form and read row by row, in a confined process unless it is small.

The process is one of its own: whatever a forged file does to the libraries that read it is done to nobody else.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from pydantic import BaseModel

from core import confined
from core.dataset_files import READ_BYTES, DataFile, Format, Split
from core.dataset_look import MAX_FAULTS, inspecting
from core.dataset_report import Report
from core.disk import sync
from core.errors import Fault, InvalidInput
from core.growing_file import GrowingFile
from core.plain_form import PlainCopy, is_plain, plain_chunks
from core.upload_formats import UploadFormat

# Text of this size is looked through sooner than a process starts, and reading it line by line can do no harm.
SMALL_BYTES = 2**18
_MAX_NOTED = 1_000_000


class Order(BaseModel):
    """What to look through. `plain` is where its plain form is to be written, if it is not in it already; `findings`
    where everything that is found goes, one JSON object a line. Of so many faults it is told, then the look ends.

    `hears` is the reader's end of a `Growth`, where the file is still coming in.
    """

    path: Path
    format: UploadFormat
    encoding: str
    split: Split
    plain: Path
    findings: Path | None = None
    max_faults: int = MAX_FAULTS
    max_bytes: int
    max_memory_bytes: int
    max_seconds: int
    hears: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the file is in its plain form as it is."""
        return is_plain(self.format, self.encoding)


class Outcome(BaseModel):
    """The report of a usable file, with the size and hash of its plain form where that is another file."""

    report: dict[str, Any]
    bytes: int = 0
    sha256: str = ""


def look_through(order: Order) -> Outcome:
    """Return what was found in a usable file; its plain form is there then.

    Raises InvalidInput, with the first faults, where it is not usable, or not within the limits; OSError where the disk
    is full.
    """
    if order.hears is None and order.is_plain and order.path.stat().st_size <= SMALL_BYTES:
        return inspect_upload(order)
    try:
        return confined.call(
            "core.inspection:inspect_upload",
            order,
            Outcome,
            what="Reading the file",
            seconds=order.max_seconds,
            memory=order.max_memory_bytes,
            waits=True,
            hears=order.hears,
        )
    except confined.OutOfTime as error:
        raise InvalidInput(
            f"Reading the file takes longer than the {order.max_seconds} s of computing that this server allows "
            "(EPOCHD_INSPECTION_SECONDS). Upload it in parts."
        ) from error
    except confined.OutOfMemory as error:
        raise InvalidInput(
            "Reading the file takes more memory than this server allows (EPOCHD_INSPECTION_MEMORY_BYTES). Upload it in "
            "parts, or as .jsonl, which is read line by line."
        ) from error
    except confined.Crashed as error:
        raise InvalidInput(
            f"The file is damaged, or was made to do damage: reading it ended in {error.cause}. Write it anew."
        ) from error


def inspect_upload(request: Order) -> Outcome:
    """Do it in this process. Raises OSError and MemoryError where the machine has too little."""
    try:
        with _opened(request) as stream:
            if request.is_plain:
                return Outcome(report=asdict(_look(stream, request)))
            chunks = plain_chunks(request.path, stream, request.format, request.encoding)
            plain = PlainCopy(chunks, request.plain, max_bytes=request.max_bytes)
            report = _look(BufferedReader(plain, READ_BYTES), request)
            return Outcome(report=asdict(report), bytes=plain.size, sha256=plain.sha256)
    except InvalidInput as error:
        faults = error.faults[:MAX_FAULTS]
        if request.format.is_text:
            raise InvalidInput(error.detail, faults) from error
        raise InvalidInput(error.detail, [_of_row(fault) for fault in faults]) from error


def plain_format(uploaded: UploadFormat) -> Format:
    """Return the format of a file's plain form."""
    return "txt" if uploaded.inner == "txt" else "jsonl"


@contextmanager
def _opened(order: Order) -> Iterator[BinaryIO]:
    if order.hears is None:
        with order.path.open("rb", buffering=READ_BYTES) as stream:
            yield stream
    else:
        with BufferedReader(GrowingFile(order.path, order.hears), READ_BYTES) as growing:
            yield cast("BinaryIO", growing)


def _look(stream: BinaryIO, order: Order) -> Report:
    report, file = Report(), DataFile(path=order.path, format=plain_format(order.format), split=order.split)
    with order.findings.open("x", encoding="utf-8") if order.findings else nullcontext() as found:
        notes = _Notes(found, "line" if order.format.is_text else "row")
        for report in inspecting(file, stream=stream, max_faults=order.max_faults, note=notes.write):  # noqa: B007 - the last is all
            pass
    if order.findings:
        sync(order.findings)
    return report


class _Notes:
    """Findings, one JSON object a line, and no more of them than somebody may ever want to read."""

    def __init__(self, stream: TextIO | None, unit: str) -> None:
        self._stream, self._unit, self._count = stream, unit, 0

    def write(self, number: int, message: str) -> None:
        self._count += 1
        if self._stream and self._count <= _MAX_NOTED:
            note = {self._unit: number, "message": _in_units(message, self._unit)}
            self._stream.write(json.dumps(note, ensure_ascii=False) + "\n")


def _of_row(fault: Fault) -> Fault:
    if fault.loc[:1] != ("line",):
        return fault
    return Fault(("row", *fault.loc[1:]), _in_units(fault.msg, "row"))


def _in_units(message: str, unit: str) -> str:
    return f"{unit}{message.removeprefix('line')}" if message.startswith("line ") else message
