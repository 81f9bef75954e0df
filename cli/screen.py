"""What people see: answers on standard output, the rest on standard error, and nothing that could steer a terminal."""

import re
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


def safe(text: str) -> str:
    """Return text that someone else wrote (a model, a server, another owner) without control characters."""
    return _CONTROL.sub("�", text)


def answer(text: str) -> None:
    """Print what was asked for, as it is, on a line of its own: a script can take it."""
    out.print(Text(safe(text)), soft_wrap=True)


def note(text: str, style: str = "") -> None:
    """Tell the person something beside the answer."""
    err.print(Text(safe(text), style=style), soft_wrap=True)


def table(columns: list[str], rows: list[list[Any]]) -> None:
    """Print rows under their headings; None is shown as a dash."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        # Narrow terminals cut the other columns short: an id that is cut is no use.
        drawn.add_column(column, no_wrap=True, min_width=None if place else max([0, *(len(str(r[0])) for r in rows)]))
    for row in rows:
        drawn.add_row(*(Text("-" if cell is None else safe(str(cell))) for cell in row))
    out.print(drawn)


def size(count: float) -> str:
    """Return bytes as people read them: 16.9 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
