"""`python -m core.inspection`: brings one upload into its plain form and looks through it, within limits.

A process of its own: it may take no more memory and time than it is given, it dies with whoever started it, and
whatever a forged file does to the libraries that read it is done to nobody else.
"""

import ctypes
import hashlib
import json
import resource
import signal
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel

from core.dataset_files import MAX_FAULTS, DataFile, Format, Split, inspecting
from core.dataset_report import Report
from core.disk import sync
from core.errors import Fault, InvalidInput
from core.plain_form import is_plain, write_plain
from core.upload_formats import UploadFormat

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_MAX_NOTED = 1_000_000


class Order(BaseModel):
    """What to look through. `plain` is where its plain form is to be written, if it is not in it already; `findings`
    where everything that is found goes, one JSON object a line. Of so many faults it is told, then the look ends.
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


class Outcome(BaseModel):
    """The report of a usable file, with the size and hash of its plain form where that is another file; or why it is
    not usable.

    `errno` is that of an error of the disk's.
    """

    report: dict[str, Any] | None = None
    bytes: int = 0
    sha256: str = ""
    detail: str = ""
    faults: list[Fault] = []
    errno: int | None = None


def inspect_upload(order: Order) -> Outcome:
    """Do it. Raises OSError and MemoryError where the machine has too little."""
    try:
        return _inspect(order)
    except InvalidInput as error:
        return Outcome(detail=error.detail, faults=error.faults)


def _inspect(order: Order) -> Outcome:
    path = order.path
    if not is_plain(order.format, order.encoding):
        path = order.plain
        write_plain(order.path, path, format_=order.format, encoding=order.encoding, max_bytes=order.max_bytes)
    file = DataFile(path=path, format=plain_format(order.format), split=order.split)
    try:
        report = _look_through(file, order)
    except InvalidInput as error:
        if order.format.is_text:
            raise
        raise InvalidInput(error.detail, [_of_row(fault) for fault in error.faults]) from error
    if path == order.path:
        return Outcome(report=asdict(report))
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Outcome(report=asdict(report), bytes=path.stat().st_size, sha256=sha256)


def plain_format(uploaded: UploadFormat) -> Format:
    """Return the format of a file's plain form."""
    return "txt" if uploaded.inner == "txt" else "jsonl"


def _look_through(file: DataFile, order: Order) -> Report:
    report = Report()
    with order.findings.open("x", encoding="utf-8") if order.findings else nullcontext() as stream:
        notes = _Notes(stream, "line" if order.format.is_text else "row")
        for report in inspecting(file, max_faults=order.max_faults, note=notes.write):  # noqa: B007 - the last is all
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


def main() -> None:
    """Read the order from standard input, and write the outcome to standard output."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Where memory is short this is what the kernel ends, not a trainer.
        Path("/proc/self/oom_score_adj").write_text("1000")
    order = Order.model_validate_json(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_AS, (order.max_memory_bytes, order.max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (order.max_seconds, order.max_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        outcome = inspect_upload(order)
    except MemoryError:
        outcome = Outcome(detail=TOO_LARGE)
    except OSError as error:
        outcome = Outcome(errno=error.errno or 0, detail=str(error))
    sys.stdout.write(outcome.model_dump_json())


TOO_LARGE = (
    "Reading the file takes more memory than this server allows (EPOCHD_INSPECTION_MEMORY_BYTES). Upload it in parts, "
    "or as .jsonl, which is read line by line."
)

if __name__ == "__main__":
    main()
