"""`epochd submit`, `jobs`, `watch`, and what is asked of a job, from `cancel` to `delete`."""

from typing import Annotated
from uuid import uuid4

import typer

from cli import plan_text
from cli.client import Client, Json
from cli.screen import answer, note, table
from cli.spec_file import read_spec
from cli.watching import watch as watch_job

SpecFile = Annotated[str, typer.Argument(metavar="SPEC", help="A .json or .yaml file, or - for standard input.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `epochd jobs` shows it.")]

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


def plan(spec: SpecFile) -> None:
    """Show what a job would do and take: rows, windows, updates, learning rates, memory, disk. Nothing is submitted."""
    headers = {"Content-Type": "application/json"}
    made = Client.from_environment().post(
        "/jobs", params={"dry_run": "true"}, content=read_spec(spec), headers=headers, attempts=_ATTEMPTS
    )
    for heading, words in plan_text.lines(made):
        answer(f"{heading:16}{words}")
    for warning in made["warnings"]:
        note(f"warning: {warning}", "yellow")


def post_job(client: Client, body: str) -> Json:
    """Submit a spec, once, however often the connection breaks."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
    return client.post("/jobs", content=body, headers=headers, attempts=_ATTEMPTS)


def jobs() -> None:
    """List your jobs, newest first."""
    table(
        ["ID", "NAME", "STATUS", "DONE", "EPOCH", "LOSS", "SUBMITTED"],
        [_row(job) for job in Client.from_environment().pages("/jobs", limit=100)],
    )


def watch(job: JobId) -> None:
    """Watch a job: live bars in a terminal, plain lines in a pipe.

    Ctrl-C ends the watching, not the job.

    The exit status tells how the job ended: 0 succeeded, 1 failed, 2 cancelled.
    """
    raise typer.Exit(watch_job(Client.from_environment(), job))


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
    progress, latest = job["progress"] or {}, job["latest"] or {}
    status = f"queued ({job['queue_position']})" if job["queue_position"] else job["status"]
    if job["stop_requested"]:
        status += f", {job['stop_requested']} asked"
    fraction, loss = progress.get("fraction"), latest.get("loss")
    return [
        job["id"],
        job["name"],
        status,
        None if fraction is None else f"{fraction:.0%}",
        f"{progress['epoch']}/{job['spec']['training']['epochs']}" if progress else None,
        None if loss is None else f"{loss:.3f}",
        job["created_at"][:16].replace("T", " "),
    ]
