"""What a watcher sees of a job: live bars in a terminal, plain lines in a pipe, JSON for programs."""

from collections import deque
from datetime import datetime
from typing import Protocol

from rich.console import Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from cli.client import Json
from cli.event_text import STYLES, lines, numbers
from cli.job_words import clock
from cli.outline import Outline
from cli.screen import as_json, note, out, plain, safe

# Updates over which the time of one is averaged.
_PACE_OF_UPDATES = 30


class View(Protocol):
    """Shows events one by one."""

    def show(self, event: Json, outline: Outline) -> None:
        """Show one event."""

    def connection_lost(self, reason: str) -> None:
        """Say that events may be late."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainView:
    """A line for each event: for pipes, logs and files."""

    def show(self, event: Json, outline: Outline) -> None:
        """Print the event."""
        for line in lines(event, outline):
            plain(line)

    def connection_lost(self, reason: str) -> None:
        """Print that too."""
        plain(f"connection lost ({reason}), trying again")

    def close(self) -> None:
        """Nothing to undo."""


class JsonView:
    """The events themselves, one a line: for other programs."""

    def show(self, event: Json, outline: Outline) -> None:  # noqa: ARG002 - an event says all there is
        """Print the event as the API tells it."""
        as_json(event)

    def connection_lost(self, reason: str) -> None:
        """Say it beside the events."""
        note(f"connection lost ({reason}), trying again")

    def close(self) -> None:
        """Nothing to undo."""


class LiveView:
    """Two bars and a line of numbers at the bottom of the terminal; everything else scrolls by above them."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(46),
            TaskProgressColumn(),
            TextColumn("{task.fields[more]}"),
        )
        self._epoch = self._bars.add_task("epoch", total=None, more="")
        self._step = self._bars.add_task("step", total=None, more="")
        self._numbers = Text("waiting for the first batch", style="dim")
        self._pace: deque[tuple[datetime, int]] = deque(maxlen=_PACE_OF_UPDATES)
        self._live = Live(Group(self._bars, self._numbers), console=out, refresh_per_second=8, transient=True)
        self._live.start()

    def show(self, event: Json, outline: Outline) -> None:
        """Move the bars, or print the event above them."""
        if event["type"] == "batch":
            self._show_batch(event, outline)
        elif event["type"] == "preparing":
            data = event["data"]
            self._numbers.plain = f"preparing: {data['phase']} {data['done']:,}/{data['total']:,}"
        else:
            if event["type"] == "started":
                self._pace.clear()  # the job may have been paused for days
            for line in lines(event, outline):
                text = Text(safe(line.lstrip()), style=STYLES.get(event["type"], ""))
                out.print(Padding(text, (0, 0, 0, len(line) - len(line.lstrip()))))

    def connection_lost(self, reason: str) -> None:
        """Say it in the place of the numbers: the next batch takes it away again."""
        self._numbers.plain = f"connection lost ({reason}), trying again"

    def close(self) -> None:
        """Take the bars away: what stays is what was printed."""
        self._live.stop()

    def _show_batch(self, event: Json, outline: Outline) -> None:
        data = event["data"]
        epoch, batch, step = data["epoch"], data["batch"], data["step"]
        per_epoch = outline.batches_per_epoch
        self._bars.update(
            self._epoch,
            description=f"epoch {epoch}/{outline.epochs}",
            total=per_epoch,
            completed=batch - (epoch - 1) * (per_epoch or 0),
            more=f"batch {batch:,}",
        )
        self._bars.update(
            self._step,
            description=f"step {step}/{outline.steps or '…'}",
            total=outline.steps,
            completed=step,
            more=self._time_left(event, outline.steps),
        )
        self._numbers.plain, self._numbers.style = numbers(data), ""

    def _time_left(self, event: Json, steps: int | None) -> str:
        step = event["data"]["step"]
        if self._pace and step < self._pace[-1][1]:
            self._pace.clear()  # the run went back to a checkpoint
        self._pace.append((datetime.fromisoformat(event["at"]), step))
        (first_at, first), (last_at, last) = self._pace[0], self._pace[-1]
        if steps is None or last == first:
            return ""
        seconds = (last_at - first_at).total_seconds() / (last - first) * (steps - step)
        return f"{clock(seconds)} left"
