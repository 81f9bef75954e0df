"""`epochd datasets`: what there is to train on."""

from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from cli.arguments import AsJson, DatasetId
from cli.check import check as look
from cli.client import Client, Json
from cli.essays import END, SEPARATOR, gather
from cli.preview_view import show
from cli.report_text import report_lines
from cli.screen import answer, as_json, note, size, table
from cli.upload import push as upload
from core.errors import InvalidInput
from core.upload_formats import UploadFormat, encoding_of

app = typer.Typer(no_args_is_help=True, help="Check, upload, list and delete datasets.")

_LEFT_OUT_SHOWN = 20


class Split(StrEnum):
    """What a row of a .txt file is."""

    BLANK_LINE = "blank_line"
    LINE = "line"
    FILE = "file"


class Mode(StrEnum):
    """How rows become what the model sees."""

    DOCUMENT = "document"
    PACKED = "packed"


_Split = Annotated[
    Split | None, typer.Option(help="What a row of a .txt is: text between blank lines, a line, or all of it.")
]
_Encoding = Annotated[str | None, typer.Option(help="How a text is written, where it is not UTF-8: gb18030, say.")]
_FORMATS = "A .txt, .jsonl (both also .gz), .parquet or .pkl file."


@app.command()
def push(  # noqa: PLR0917 - typer calls it by name
    file: Annotated[
        Path | None, typer.Argument(help=_FORMATS, exists=True, dir_okay=False, readable=True, show_default=False)
    ] = None,
    split: _Split = None,
    encoding: _Encoding = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Instead of a file: a folder of essays, one .txt each.", exists=True, file_okay=False),
    ] = None,
    separator: Annotated[str, typer.Option(help="With --folder: what stands between title and text.")] = SEPARATOR,
    end: Annotated[str, typer.Option(help="With --folder: what stands behind a text.")] = END,
) -> None:
    """Upload a file, from where an earlier try stopped, and print the new dataset's id, alone on its line."""
    client = Client.from_environment()
    if (file is None) == (folder is None):
        raise InvalidInput("Name a file, or with --folder a folder of essays.")
    if file is not None:
        dataset = upload(client, file, split=split, encoding=encoding)
    else:
        assert folder is not None
        known = encoding_of(encoding, UploadFormat("txt"))
        with TemporaryDirectory(prefix="epochd-essays-") as temporary:
            rows = Path(temporary) / f"{folder.resolve().name}.jsonl"
            gathered = gather(folder, rows, separator=separator, end=end, encoding=known)
            for name, reason in gathered.left_out[:_LEFT_OUT_SHOWN]:
                note(f"{name} {reason}: left out", "yellow")
            note(f"{gathered.essays:,} essays, {len(gathered.left_out):,} files left out")
            dataset = upload(client, rows)
    _tell(dataset)
    answer(dataset["id"])


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help=_FORMATS, exists=True, dir_okay=False, readable=True)],
    split: _Split = None,
    encoding: _Encoding = None,
) -> None:
    """Look through a file as the server would, without one. Every fault is printed; status 1 where there are any."""
    found = look(file, split=(split or Split.BLANK_LINE).value, encoding=encoding)
    for line in report_lines(found.report):
        note(line)
    for message in found.findings:
        answer(message)
    if found.refusal:
        raise InvalidInput(found.refusal)
    note("The file can be used as it is.")


@app.command()
def preview(
    dataset: DatasetId,
    *,
    rows: Annotated[int, typer.Option(help="How many rows, from the first on.")] = 5,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="bytes, train (the default for text), or the id of an uploaded tokenizer or of a job."),
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Of a tokenizer that is trained.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="As in a spec's sequence.")] = None,
    max_length: Annotated[int | None, typer.Option(help="As in a spec's sequence.")] = None,
    stride: Annotated[int | None, typer.Option(help="As in a spec's sequence.")] = None,
    min_length: Annotated[int | None, typer.Option(help="As in a spec's sequence.")] = None,
) -> None:
    """Show a dataset's first rows as the model will see them: token by token, window by window.

    Tokens that carry no loss are dimmed and struck through; in a pipe they have a ~ before them.
    """
    wanted = {
        **{"rows": rows, "tokenizer": tokenizer, "vocab_size": vocab_size, "mode": mode},
        **{"max_length": max_length, "stride": stride, "min_length": min_length},
    }
    asked = {name: value for name, value in wanted.items() if value is not None}
    shown = Client.from_environment().get(f"/datasets/{dataset}/preview", **asked)
    show(shown)
    for said in shown["notes"]:
        note(said)


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List your datasets, newest first."""
    found = Client.from_environment().pages("/datasets", limit=100)
    if json:
        for dataset in found:
            as_json(dataset)
        return
    table(
        ["ID", "FILE", "FORMAT", "ROWS", "SIZE", "UPLOADED"],
        [
            [d["id"], d["filename"], d["format"], f"{d['rows']:,}", size(d["bytes"]), d["created_at"][:16]]
            for d in found
        ],
    )


@app.command()
def delete(dataset: DatasetId) -> None:
    """Delete a dataset that no live job needs."""
    Client.from_environment().delete(f"/datasets/{dataset}")


def _tell(dataset: Json) -> None:
    report = dataset["report"]
    note(f"{dataset['rows']:,} rows, {size(dataset['bytes'])}, format {dataset['format']}")
    for line in report_lines(report | {"rows": dataset["rows"]}):
        note(line)
    for warning in report["warnings"]:
        note(f"line {warning['line']}: {warning['message']}", "yellow")
    if report["skipped_rows"] > len(report["warnings"]):
        note(f"All {report['skipped_rows']:,} skipped rows: GET {dataset['report_url']}", "yellow")
