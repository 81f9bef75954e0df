"""What people see: answers on standard output, the rest on standard error, and nothing that could steer a terminal."""

import json
import re
from shutil import get_terminal_size
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# A table in a pipe is for other programs: its lines are never wrapped.
_PIPE_WIDTH = 10_000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)


def can_redraw(console: Console) -> bool:
    """Say whether lines can be drawn again: not in a pipe, and not on a dumb terminal."""
    return console.is_terminal and not console.is_dumb_terminal


def safe(text: str) -> str:
    """Return text that someone else wrote (a model, a server, another owner) without control characters."""
    return _CONTROL.sub("�", text)


def answer(text: str) -> None:
    """Print what was asked for, as it is, on a line of its own: a script can take it."""
    out.print(Text(safe(text)), soft_wrap=True)


def note(text: str, style: str = "") -> None:
    """Tell the person something beside the answer."""
    err.print(Text(safe(text), style=style), soft_wrap=True)


def plain(text: str) -> None:
    """Print a line at once: whoever reads the pipe wants it while it happens."""
    print(safe(text), flush=True)  # noqa: T201 - for pipes, where nothing is to be measured or coloured


def as_json(document: Any) -> None:
    """Print a document for other programs: one line, in ASCII, which is safe for any terminal, at once."""
    plain(json.dumps(document, separators=(",", ":")))


def table(columns: list[str], rows: list[list[Any]]) -> None:
    """Print rows under their headings; None is shown as a dash."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        # Narrow terminals cut the other columns short: an id that is cut is no use.
        drawn.add_column(column, no_wrap=True, min_width=None if place else max([0, *(len(str(r[0])) for r in rows)]))
    for row in rows:
        drawn.add_row(*(Text("-" if cell is None else safe(str(cell))) for cell in row))
    out.print(drawn)


def drawing_width() -> int:
    """Return how many columns a drawing may take: those of the terminal, in a pipe COLUMNS or 80."""
    return out.width if out.is_terminal else get_terminal_size().columns


def drawing(text: str) -> None:
    """Print a drawing with the colours that it has."""
    out.print(Text.from_ansi(text), soft_wrap=True)


def size(count: float) -> str:
    """Return bytes as people read them: 16.9 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
