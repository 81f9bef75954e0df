"""The entry point `epochd`: the list of commands, and every expected error as a sentence."""

import sys
from typing import NoReturn

import typer

from cli.commands import datasets, demo, doctor, jobs, keys, pull, server, tokenizers, watch
from cli.screen import note
from core.errors import EpochdError

app = typer.Typer(
    name="epochd",
    help="Train GPT-style language models over HTTP, and watch every batch.",
    epilog="Where: EPOCHD_URL, EPOCHD_API_KEY; on the server's machine `epochd` finds both by itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_START, _TRAIN, _CONTROL, _OPERATE = "Start here", "Train", "Control a job", "Operate a server"

app.command(rich_help_panel=_START)(demo.demo)
app.command(rich_help_panel=_START)(server.up)
app.add_typer(datasets.app, name="datasets", rich_help_panel=_TRAIN)
app.add_typer(tokenizers.app, name="tokenizers", rich_help_panel=_TRAIN)
app.command(rich_help_panel=_TRAIN)(jobs.plan)
app.command(rich_help_panel=_TRAIN)(jobs.submit)
app.command(rich_help_panel=_TRAIN)(jobs.jobs)
app.command(rich_help_panel=_TRAIN)(watch.watch)
app.command(rich_help_panel=_TRAIN)(watch.plot)
app.command(rich_help_panel=_TRAIN)(watch.logs)
app.command(rich_help_panel=_TRAIN)(pull.pull)
for command in (jobs.cancel, jobs.pause, jobs.resume, jobs.retry, jobs.save, jobs.delete):
    app.command(rich_help_panel=_CONTROL)(command)
app.add_typer(keys.app, name="keys", rich_help_panel=_OPERATE)
app.command(rich_help_panel=_OPERATE)(server.migrate)
app.command(rich_help_panel=_OPERATE)(doctor.doctor)


def main() -> NoReturn:
    """Run a command. What can be expected to go wrong ends in one sentence and status 1, never in a traceback."""
    try:
        app()
    except EpochdError as error:
        note(f"epochd: {error.detail}", "red")
    except UnicodeDecodeError as error:
        note(f"epochd: the file is not UTF-8 text (byte {error.start}).", "red")
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        note(f"epochd: {subject}{error.strerror or error}", "red")
    sys.exit(1)


if __name__ == "__main__":
    main()
