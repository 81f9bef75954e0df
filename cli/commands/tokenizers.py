"""`epochd tokenizers`: those that were made elsewhere, for jobs and previews."""

from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import AsJson
from cli.client import Client
from cli.screen import answer, as_json, note, size, table
from cli.upload import send

app = typer.Typer(no_args_is_help=True, help="Upload and list tokenizers.")


@app.command()
def push(
    file: Annotated[
        Path,
        typer.Argument(help="A tokenizer.json, or a SentencePiece model.", exists=True, dir_okay=False, readable=True),
    ],
    end_of_text: Annotated[
        str | None, typer.Option(help="The token that ends a text, where the tokenizer does not say so itself.")
    ] = None,
) -> None:
    """Upload a tokenizer and print its id, alone on its line."""
    params = {"end_of_text": end_of_text} if end_of_text else {}
    made = send(Client.from_environment(), "/tokenizers", file, params)
    note(f"{made['vocab_size']:,} tokens, {made['end_of_text']} ends a text, format {made['format']}")
    if not made["lossless"]:
        note("what it reads does not all come back: spaces or characters are changed on the way", "yellow")
    answer(made["id"])


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List your tokenizers, newest first."""
    found = Client.from_environment().pages("/tokenizers", limit=100)
    if json:
        for made in found:
            as_json(made)
        return
    table(
        ["ID", "FILE", "FORMAT", "TOKENS", "END OF TEXT", "SIZE", "UPLOADED"],
        [
            [
                made["id"],
                made["filename"],
                made["format"],
                f"{made['vocab_size']:,}",
                made["end_of_text"],
                size(made["bytes"]),
                made["created_at"][:16],
            ]
            for made in found
        ],
    )
