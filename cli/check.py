"""Looking through a file on this machine as the server would, and telling every fault."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cli.client import Json
from core.errors import InvalidInput
from core.inspection import Order, look_through
from core.settings import load_settings
from core.upload_formats import encoding_of, recognise

_ALL_FAULTS = 2**31


class Checked(NamedTuple):
    """What was found: numbers, if the file can be used; every sentence on a line; and why it cannot be used, if so."""

    report: Json
    findings: list[str]
    refusal: str


def check(path: Path, *, split: str, encoding: str | None) -> Checked:
    """Look through a file. Raises InvalidInput for a file of a format that epochd does not read."""
    format_ = recognise(path, path.name)
    settings = load_settings()
    with TemporaryDirectory(prefix="epochd-check-") as folder:
        found = Path(folder) / "findings"
        order = Order.model_validate(
            {
                "path": path.resolve(),
                "format": format_,
                "encoding": encoding_of(encoding, format_),
                "split": split,
                "plain": Path(folder) / "plain",
                "findings": found,
                "max_faults": _ALL_FAULTS,
                "max_bytes": settings.max_upload_bytes,
                "max_memory_bytes": settings.inspection_memory_bytes,
                "max_seconds": settings.inspection_seconds,
            }
        )
        try:
            return Checked(look_through(order).report, _sentences(found), "")
        except InvalidInput as error:
            written = _sentences(found) or [fault.msg for fault in error.faults]
            return Checked({}, written, error.detail.replace("named in errors and upload it again", "that are named"))


def _sentences(found: Path) -> list[str]:
    if not found.exists():
        return []
    notes = map(json.loads, found.read_text(encoding="utf-8").splitlines())
    return [_sentence(**note) for note in notes]


def _sentence(message: str, **place: int) -> str:
    [(unit, number)] = place.items()
    return message if f"{unit} {number}" in message else f"{unit} {number}: {message}"
