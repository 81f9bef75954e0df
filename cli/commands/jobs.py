"""`epochd plan`, `submit`, `jobs`, and what is asked of a job, from `cancel` to `delete`."""

from typing import Annotated
from uuid import uuid4

import typer

from cli import job_words, plan_text
from cli.arguments import AsJson, JobId
from cli.client import Client, Json
from cli.screen import answer, as_json, note, table
from cli.spec_file import read_spec
from cli.watching import watch as watch_job
from core.job_states import JobStatus

SpecFile = Annotated[str, typer.Argument(metavar="SPEC", help="A .json or .yaml file, or - for standard input.")]

# With an Idempotency-Key a repeated request makes no second job.
_ATTEMPTS = 3


def submit(
    spec: SpecFile,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with `epochd watch`.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan alone, as `epochd plan` does.")] = False,
) -> None:
    """Submit a job and print its id, alone on its line."""
    if dry_run:
        plan(spec)
        return
    client = Client.from_environment()
    job = post_job(client, read_spec(spec))
    for warning in job["plan"]["warnings"]:
        note(f"warning: {warning}", "yellow")
    answer(job["id"])
    if watch:
        raise typer.Exit(watch_job(client, job["id"]))


def plan(spec: SpecFile, json: AsJson = False) -> None:
    """Show what a job would do and take: rows, windows, updates, learning rates, memory, disk. Nothing is submitted."""
    headers = {"Content-Type": "application/json"}
    made = Client.from_environment().post(
        "/jobs", params={"dry_run": "true"}, content=read_spec(spec), headers=headers, attempts=_ATTEMPTS
    )
    if json:
        as_json(made)
        return
    for heading, words in plan_text.lines(made):
        answer(f"{heading:16}{words}")
    for warning in made["warnings"]:
        note(f"warning: {warning}", "yellow")


def post_job(client: Client, body: str) -> Json:
    """Submit a spec, once, however often the connection breaks."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
    return client.post("/jobs", content=body, headers=headers, attempts=_ATTEMPTS)


def jobs(
    *,
    status: Annotated[JobStatus | None, typer.Option(help="Only those in this state.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="KEY:VALUE", help="Only those with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, from the newest on.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on behind this one: the list before has named it.")] = None,
    json: AsJson = False,
) -> None:
    """List your jobs, newest first.

    With --json a line is a job as `GET /jobs/{id}` returns it.
    """
    asked = {"status": status.value if status else None, "tag": tag, "cursor": cursor}
    found, more = Client.from_environment().first(
        "/jobs", limit, **{name: value for name, value in asked.items() if value}
    )
    if json:
        for job in found:
            as_json(job)
    else:
        table(["ID", "NAME", "STATUS", "DONE", "EPOCH", "LOSS", "SUBMITTED"], [_row(job) for job in found])
    if more:
        note(f"There are more: add --cursor {more} or raise --limit.")


def cancel(job: JobId) -> None:
    """Cancel a job. A running one saves a checkpoint first."""
    answered = Client.from_environment().post(f"/jobs/{job}/cancel")
    if answered["status"] == "cancelled":
        note(f"{job} is cancelled.")
    else:
        note(f"{job} stops after the update in hand and saves a checkpoint. `epochd watch {job}` shows when.")


def pause(job: JobId) -> None:
    """Pause a job. A running one saves a checkpoint first and frees its device."""
    answered = Client.from_environment().post(f"/jobs/{job}/pause")
    if answered["status"] == "paused":
        note(f"{job} is paused. `epochd resume {job}` queues it again.")
    else:
        note(f"{job} pauses after the update in hand and saves a checkpoint. `epochd watch {job}` shows when.")


def resume(job: JobId) -> None:
    """Queue a paused job again: it goes on from its last checkpoint."""
    answered = Client.from_environment().post(f"/jobs/{job}/resume")
    note(f"{job} is queued again." if answered["status"] == "queued" else f"{job} runs on.")


def retry(job: JobId) -> None:
    """Queue a failed or cancelled job again: it goes on from its last checkpoint."""
    Client.from_environment().post(f"/jobs/{job}/retry")
    note(f"{job} is queued again. `epochd watch {job}` shows how it goes on.")


def save(job: JobId) -> None:
    """Ask a running job for a checkpoint now. It goes on."""
    Client.from_environment().post(f"/jobs/{job}/checkpoints")
    note(f"{job} saves a checkpoint after the update in hand. `epochd pull {job}@latest` fetches it then.")


def delete(
    job: JobId, yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether this is meant.")] = False
) -> None:
    """Delete a job that has ended, with its log and its checkpoints."""
    client = Client.from_environment()
    if not yes:
        typer.confirm(f"Delete {job}, its log and all of its checkpoints?", abort=True)
    client.delete(f"/jobs/{job}")
    note(f"{job} is deleted.")


def _row(job: Json) -> list[str | None]:
    words = (job_words.state, job_words.done, job_words.epoch, job_words.loss)
    return [job["id"], job["name"], *(of(job) for of in words), job["created_at"][:16].replace("T", " ")]
