"""The published checkpoints of a job: rows written under the fence, found by epoch, thinned out by retention."""

import math
from typing import Literal

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.checkpoint_files import FileEntry, manifest_sha256
from core.errors import NotFound
from core.job_states import TERMINAL
from core.models import Checkpoint, Job

# The second newest is there for when the newest turns out damaged.
STATES_KEPT = 2
_NEWEST_FIRST = (col(Checkpoint.step).desc(), col(Checkpoint.fence).desc())


def store_key(checkpoint: Checkpoint) -> str:
    """Return where a checkpoint's folder lies."""
    return f"{folder_key(checkpoint.job_id)}/{checkpoint.fence}-{checkpoint.step}"


def folder_key(job_id: str) -> str:
    """Return where all checkpoints of a job lie."""
    return f"checkpoints/{job_id}"


def new(
    job_id: str,
    fence: int,
    *,
    step: int,
    epoch: int,
    files: list[FileEntry],
    state_files: list[FileEntry],
    loss: float | None,
    accuracy: float | None,
    validation_loss: float | None,
) -> Checkpoint:
    """Return the row of a folder that is ready to be published."""
    return Checkpoint(
        job_id=job_id,
        fence=fence,
        step=step,
        epoch=epoch,
        bytes=sum(file["bytes"] for file in files),
        manifest_sha256=manifest_sha256(files),
        files=[dict(file) for file in files],
        state_files=[dict(file) for file in state_files],
        loss=loss,
        accuracy=accuracy,
        validation_loss=validation_loss,
    )


def add(session: Session, checkpoint: Checkpoint) -> None:
    """Insert the row, in the transaction whose first statement holds the job's row under its fence.

    One that is there already stays as it is, so a write whose commit was in doubt can be repeated.
    """
    if session.get(Checkpoint, (checkpoint.job_id, checkpoint.fence, checkpoint.step)) is None:
        session.add(checkpoint)
        session.flush()
    _mark_best(session, checkpoint.job_id)


def all_of(session: Session, job_id: str) -> list[Checkpoint]:
    """Return a job's checkpoints, newest first."""
    return list(session.exec(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(*_NEWEST_FIRST)))


def find(
    session: Session, job_id: str, epoch: int | Literal["latest", "best"], manifest_sha256: str | None = None
) -> Checkpoint:
    """Return the newest checkpoint of an epoch, of all, or the best one. Raises NotFound.

    With a manifest's hash only the one with that content is meant.
    """
    query = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(*_NEWEST_FIRST).limit(1)
    if epoch == "best":
        query = query.where(col(Checkpoint.best))
    elif epoch != "latest":
        query = query.where(Checkpoint.epoch == epoch)
    if manifest_sha256:
        query = query.where(Checkpoint.manifest_sha256 == manifest_sha256)
    found = session.exec(query).first()
    if found is None:
        raise NotFound(f"{job_id} has no checkpoint {epoch}. `GET /jobs/{job_id}/checkpoints` lists what there is.")
    return found


def at(session: Session, key: str) -> Checkpoint:
    """Return the checkpoint whose folder lies under a key of the store. Raises NotFound."""
    _, job_id, place = key.split("/")
    fence, step = map(int, place.split("-"))
    found = session.get(Checkpoint, (job_id, fence, step))
    if found is None:
        raise NotFound(f"The checkpoint of step {step} of {job_id} is no longer there.")
    return found


def is_published(session: Session, job_id: str, step: int) -> bool:
    """Say whether a checkpoint of this update is listed."""
    query = select(Checkpoint.step).where(Checkpoint.job_id == job_id, Checkpoint.step == step)
    return session.exec(query.limit(1)).first() is not None


def resumable(session: Session, job_id: str) -> list[Checkpoint]:
    """Return the checkpoints that a run can go on from, newest first."""
    return [row for row in all_of(session, job_id) if row.state_files]


def newest_resumable(session: Session, job_id: str) -> Checkpoint | None:
    """Return the checkpoint that the next run goes on from, unless it turns out damaged."""
    return next(iter(resumable(session, job_id)), None)


def retire(session: Session, job_id: str, keep: int) -> list[str]:
    """Delete what retention no longer keeps and return the store's keys to delete after the commit.

    Kept are the newest `keep`, the best one, and those that a live job goes on from; their training states only of the
    newest two.
    """
    gone: list[str] = []
    rows = all_of(session, job_id)
    needed = needed_by_live_jobs(session, rows)
    for place, row in enumerate(rows):
        if place >= keep and not row.best and store_key(row) not in needed:
            gone.append(store_key(row))
            session.delete(row)
        elif place >= STATES_KEPT and row.state_files:
            gone.append(f"{store_key(row)}/state")
            row.state_files = []
    session.flush()
    return gone


def needed_by_live_jobs(session: Session, rows: list[Checkpoint]) -> dict[str, str]:
    """Return the store's keys of those checkpoints that live jobs go on from, each with such a job."""
    named = col(Job.base_checkpoint).in_([store_key(row) for row in rows])
    query = select(Job.base_checkpoint, Job.id).where(named, col(Job.status).not_in(TERMINAL))
    return {key: job_id for key, job_id in session.exec(query) if key}


def remove(session: Session, checkpoint: Checkpoint) -> None:
    """Take a damaged checkpoint off the list; where it was the best, the best of the others follows."""
    session.execute(
        sa.delete(Checkpoint).where(
            col(Checkpoint.job_id) == checkpoint.job_id,
            col(Checkpoint.fence) == checkpoint.fence,
            col(Checkpoint.step) == checkpoint.step,
        )
    )
    _mark_best(session, checkpoint.job_id)


def _mark_best(session: Session, job_id: str) -> None:
    rows = all_of(session, job_id)
    best = min(rows, key=_score, default=None)
    for row in rows:
        row.best = row is best
    session.flush()


def _score(checkpoint: Checkpoint) -> tuple[bool, float]:
    # Validation loss decides where it is known; a training loss never beats one. What is not finite is not known.
    if checkpoint.validation_loss is not None and math.isfinite(checkpoint.validation_loss):
        return (False, checkpoint.validation_loss)
    if checkpoint.loss is not None and math.isfinite(checkpoint.loss):
        return (True, checkpoint.loss)
    return (True, math.inf)
