"""What a watcher sees of all live jobs: a table in a terminal, plain lines in a pipe, JSON for programs."""

from collections.abc import Callable
from operator import itemgetter
from typing import Protocol

from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli import job_words
from cli.client import Json
from cli.event_text import STYLES
from cli.live_jobs import Look
from cli.screen import as_json, note, out, plain, safe

_COLUMNS: dict[str, Callable[[Json], str | None]] = {
    "ID": itemgetter("id"),
    "NAME": itemgetter("name"),
    "STATUS": job_words.state,
    "DONE": job_words.done,
    "EPOCH": job_words.epoch,
    "STEP": job_words.step,
    "LOSS": job_words.loss,
    "TOKENS/S": job_words.speed,
    "LEFT": job_words.time_left,
}
# For as many columns of the terminal there is room for all of them.
_WIDE_COLUMNS = 110
_NARROW = ("ID", "NAME", "STATUS", "DONE", "LOSS", "LEFT")


class JobsView(Protocol):
    """Shows looks one by one."""

    def show(self, look: Look) -> None:
        """Show how the jobs are."""

    def connection_lost(self, reason: str) -> None:
        """Say that what is shown may be old."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class JobsTable:
    """A table that is drawn again at each look; jobs that end scroll by above it."""

    def __init__(self) -> None:
        self._live = Live(console=out, auto_refresh=False, transient=True)
        self._live.start()
        self._look = Look([], [])

    def show(self, look: Look) -> None:
        """Draw the table."""
        self._look = look
        for job in look.ended:
            out.print(Text(safe(job_words.line(job)), style=STYLES[job["status"]]))
        self._draw(None)

    def connection_lost(self, reason: str) -> None:
        """Say it under the table: the next look takes it away again."""
        self._draw(f"connection lost ({reason}), trying again")

    def close(self) -> None:
        """Take the table away: what stays is which jobs have ended."""
        self._live.stop()

    def _draw(self, caption: str | None) -> None:
        columns = _COLUMNS if out.width >= _WIDE_COLUMNS else {name: _COLUMNS[name] for name in _NARROW}
        table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
        cells = {name: [safe(words(job) or "-") for job in self._look.live] for name, words in columns.items()}
        widths = {name: max(map(len, [name, *column])) for name, column in cells.items()}
        # A narrow terminal cuts the names short, and the rest is whole.
        left = out.width - sum(widths.values()) - 2 * (len(widths) - 1) + widths["NAME"]
        for name in columns:
            table.add_column(
                name, no_wrap=True, width=min(widths[name], max(8, left)) if name == "NAME" else widths[name]
            )
        for row in zip(*cells.values(), strict=True):
            table.add_row(*map(Text, row))
        self._live.update(table, refresh=True)


class JobLines:
    """A line for each job that begins, ends, changes its state or reaches another epoch: for pipes, logs and files."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, str | None]] = {}

    def show(self, look: Look) -> None:
        """Print what has changed."""
        for job in (*look.ended, *look.live):
            seen = (job_words.state(job), job_words.epoch(job))
            if self._shown.get(job["id"]) != seen:
                self._shown[job["id"]] = seen
                plain(job_words.line(job))

    def connection_lost(self, reason: str) -> None:
        """Print that too."""
        plain(f"connection lost ({reason}), trying again")

    def close(self) -> None:
        """Nothing to undo."""


class JobsJson:
    """A job, as `GET /jobs/{id}` tells of it, whenever it has changed: one a line, for other programs."""

    def __init__(self) -> None:
        self._shown: dict[str, Json] = {}

    def show(self, look: Look) -> None:
        """Print what has changed."""
        for job in (*look.ended, *look.live):
            if self._shown.get(job["id"]) != job:
                self._shown[job["id"]] = job
                as_json(job)

    def connection_lost(self, reason: str) -> None:
        """Say it beside the jobs."""
        note(f"connection lost ({reason}), trying again")

    def close(self) -> None:
        """Nothing to undo."""
