"""`epochd pull`: a checkpoint on this machine, verified."""

from pathlib import Path
from typing import Annotated

import typer

from cli import completion
from cli.checkpoint_download import default_folder, download, find_checkpoint, is_there
from cli.client import Client
from cli.screen import answer, note, safe, size
from cli.upload import transfer_bar
from core.errors import InvalidInput


def pull(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="JOB[@EPOCH]",
            help="A job's id and an epoch's number, `latest` or `best`.",
            autocompletion=completion.job_ids,
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to. Default: a name like docs-gpt-epoch-3.")
    ] = None,
) -> None:
    """Download a checkpoint, verify every file, and print the folder's name, alone on its line.

    Files come side by side, and an interrupted download goes on where it stopped. The folder loads with transformers'
    `from_pretrained`.
    """
    job_id, _, epoch = checkpoint.partition("@")
    epoch = epoch or "latest"
    if epoch not in ("latest", "best") and not (epoch.isascii() and epoch.isdecimal()):
        raise InvalidInput(f"{epoch!r} is no epoch: write a number, latest or best, as in {job_id}@latest.")
    answer(str(fetch(Client.from_environment(), job_id, epoch, folder)))


def fetch(client: Client, job_id: str, epoch: str, folder: Path | None) -> Path:
    """Download and verify a checkpoint unless it is there already, and return its folder."""
    job = client.get(f"/jobs/{job_id}")
    found = find_checkpoint(client, job_id, epoch)
    folder = folder or default_folder(job, found)
    count = len(found["files"])
    if is_there(folder, found):
        note(f"Epoch {found['epoch']} is there already: {count} files match their sha256.")
        return folder
    with transfer_bar() as bar:
        whole = bar.add_task(f"epoch {found['epoch']}", total=found["bytes"])
        tasks = {file["name"]: bar.add_task(safe(file["name"]), total=file["bytes"]) for file in found["files"]}

        def advance(name: str, count: int) -> None:
            for task in (whole, tasks[name]):
                bar.advance(task, count)

        download(client, found, folder, advance)
    note(f"Epoch {found['epoch']}: {count} files, {size(found['bytes'])}, each matches its sha256.")
    return folder
