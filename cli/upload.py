"""Sending a dataset: streamed from the disk, with a bar."""

from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from cli.client import Client, Json
from cli.screen import err
from core.dataset_files import format_of

_CHUNK_BYTES = 1 << 18


def transfer_bar() -> Progress:
    """Return a bar for bytes under way, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(40),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def push(client: Client, path: Path, split: str | None) -> Json:
    """Upload a file and return the dataset that the server made of it.

    Raises InvalidInput, before a byte is sent, for a file of a format that epochd does not read.
    """
    format_of(path.name)
    size = path.stat().st_size
    with path.open("rb"), transfer_bar() as bar:
        return client.post(
            "/datasets",
            params={"filename": path.name} | ({"split": split} if split else {}),
            content=_chunks(path, bar, bar.add_task(path.name, total=size)),
            headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
            timeout=None,  # the server reads the whole file before it answers
        )


def _chunks(path: Path, bar: Progress, task: TaskID) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
            bar.advance(task, len(chunk))
    bar.update(task, description="the server checks every row")
