"""`epochd datasets`: what there is to train on."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Client
from cli.screen import answer, note, size, table
from cli.upload import push as upload

app = typer.Typer(no_args_is_help=True, help="Upload and list datasets.")


class Split(StrEnum):
    """What a row of a .txt file is."""

    BLANK_LINE = "blank_line"
    LINE = "line"
    FILE = "file"


@app.command()
def push(
    file: Annotated[Path, typer.Argument(help="A .txt or a .jsonl file.", exists=True, dir_okay=False, readable=True)],
    split: Annotated[
        Split | None, typer.Option(help="What a row of a .txt is: text between blank lines, a line, or all of it.")
    ] = None,
) -> None:
    """Upload a file and print the new dataset's id, alone on its line."""
    dataset = upload(Client.from_environment(), file, split)
    note(f"{dataset['rows']:,} rows, {size(dataset['bytes'])}, format {dataset['format']}")
    for warning in dataset["report"]["warnings"]:
        note(f"line {warning['line']}: {warning['message']}", "yellow")
    answer(dataset["id"])


@app.command("list")
def list_() -> None:
    """List your datasets, newest first."""
    table(
        ["ID", "FILE", "FORMAT", "ROWS", "SIZE", "UPLOADED"],
        [
            [d["id"], d["filename"], d["format"], f"{d['rows']:,}", size(d["bytes"]), d["created_at"][:16]]
            for d in Client.from_environment().pages("/datasets", limit=100)
        ],
    )
