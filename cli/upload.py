"""Sending a file with a bar: a dataset from where the server has it so far, as often as the connection breaks."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from cli.client import Client, Json, Refused, Unanswered
from cli.patience import Patience
from cli.screen import can_redraw, err
from core.upload_formats import encoding_of, format_of

_CHUNK_BYTES = 1 << 18
_PATIENCE_SECONDS = 120.0
_CONFLICT = 409


def transfer_bar() -> Progress:
    """Return a bar for bytes under way, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(40),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=err,
        transient=True,
        disable=not can_redraw(err),
    )


def push(client: Client, path: Path, *, split: str | None = None, encoding: str | None = None) -> Json:
    """Upload a file and return the dataset that the server made of it.

    A connection that breaks is taken up again behind what the server has, and so is an earlier push of the same file
    that was interrupted. Raises InvalidInput, before a byte is sent, for a file of a format that epochd does not read.
    """
    encoding_of(encoding, format_of(path.name))
    size = path.stat().st_size
    with path.open("rb") as stream:
        announced = {"filename": path.name, "bytes": size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    chosen = {name: value for name, value in (("split", split), ("encoding", encoding)) if value}
    patience = Patience(_PATIENCE_SECONDS)
    upload = patience.ask(lambda: client.post("/uploads", json=announced | chosen))
    address = f"/uploads/{upload['id']}"
    with transfer_bar() as bar:
        task = bar.add_task(path.name, total=size)
        _send(client, path, upload, bar, task)
        bar.update(task, completed=size, description="the server checks every row")
        # It reads the whole file before it answers.
        return Patience(_PATIENCE_SECONDS).ask(lambda: client.post(f"{address}/complete", timeout=None))


def send(client: Client, route: str, path: Path, params: dict[str, str]) -> Json:
    """Upload a small file to a route in one request and return the answer."""
    size = path.stat().st_size
    with transfer_bar() as bar:
        return client.post(
            route,
            params={"filename": path.name} | params,
            content=_chunks(path, 0, bar, bar.add_task(path.name, total=size)),
            headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
            timeout=None,  # the server reads the whole file before it answers
        )


def _send(client: Client, path: Path, upload: Json, bar: Progress, task: TaskID) -> None:
    address, offset, patience = f"/uploads/{upload['id']}", upload["offset"], Patience(_PATIENCE_SECONDS)
    while offset < upload["bytes"]:
        bar.update(task, completed=offset)
        try:
            client.patch(address, content=_chunks(path, offset, bar, task), headers={"Upload-Offset": str(offset)})
        except Unanswered as error:
            patience.wait(error)
        except Refused as error:
            # Of a request that broke more may have come since the server was asked.
            if error.status != _CONFLICT:
                raise
            patience.wait(error)
        before, offset = offset, patience.ask(lambda: client.get(address))["offset"]
        if offset > before:
            patience.renew()


def _chunks(path: Path, offset: int, bar: Progress, task: TaskID) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(offset)
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
            bar.advance(task, len(chunk))
