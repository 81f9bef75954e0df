"""`epochd watch`, `plot` and `logs`: how jobs go on, in the terminal."""

from enum import StrEnum
from typing import Annotated

import typer

from cli import completion
from cli.arguments import AsJson, JobId
from cli.client import Client
from cli.screen import drawing, drawing_width, note, out
from cli.trainer_logs import show
from cli.watching import watch as watch_job
from cli.watching import watch_all


class Metric(StrEnum):
    """What can be drawn."""

    LOSS = "loss"
    ACCURACY = "accuracy"
    LEARNING_RATE = "learning_rate"
    GRAD_NORM = "grad_norm"


def watch(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="The job's id. Without one: all that are live, until none is.",
            autocompletion=completion.job_ids,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Watch a job, or all live ones: bars or a table in a terminal, plain lines in a pipe.

    Ctrl-C ends the watching, not the job. A lost connection is taken up again behind what was seen.

    The exit status tells how it ended: 0 succeeded, 1 failed, 2 cancelled; of several jobs 0 where all have succeeded.
    With --json a line is an event, of several jobs a job that has changed.
    """
    client = Client.from_environment()
    raise typer.Exit(watch_job(client, job, json=json) if job else watch_all(client, json=json))


def plot(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Jobs' ids.", autocompletion=completion.job_ids)],
    metric: Annotated[Metric, typer.Option(help="What to draw.")] = Metric.LOSS,
) -> None:
    """Draw curves of one job or of several, by update."""
    from cli.curve import POINTS, draw  # noqa: PLC0415 - a quarter of a second to import

    client = Client.from_environment()
    curves = {}
    for job_id in dict.fromkeys(jobs):
        name = client.get(f"/jobs/{job_id}")["name"]
        label = name if name not in curves else f"{name} ({job_id})"
        curves[label] = client.get(f"/jobs/{job_id}/metrics", points=POINTS)
        if len(jobs) > 1 and not any(value is not None for value in curves[label][metric]):
            note(f"{label}: no {metric.replace('_', ' ')} is known yet")
    drawing(draw(curves, metric.value, width=drawing_width(), colors=out.color_system is not None))


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Show what a job's trainers wrote themselves: tracebacks, and what libraries warn of.

    It is the end of what each of the last attempts wrote.
    """
    show(Client.from_environment(), job, follow=follow)
