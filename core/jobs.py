"""A job's life: one function for each move, each one guarded UPDATE and its event in one transaction.

`docs/states.md` draws it. Every move makes the fence grow, so whoever held the job before can write nothing more. They
are in one file, however long: each is right only beside the others.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core import checkpoints, datasets, job_queries, limits, metrics, submission, tokenizers
from core.database import database_now
from core.errors import CancelRequested, Conflict, EpochdError, FenceLost, InvalidInput, NotFound
from core.events import Cursor, Event, append
from core.ids import new_id
from core.job_spec import JobSpec, UploadedTokenizer, ValidationDataset
from core.job_states import TERMINAL, JobStatus, StopRequest
from core.model_spec import EarlierModel
from core.models import Job, JobTag, utc_now
from core.ownership import Seer
from core.settings import Settings
from core.unit_of_work import announcements, log_event

_ANSWERS = {StopRequest.CANCEL: JobStatus.CANCELLED, StopRequest.PAUSE: JobStatus.PAUSED}
_ENDED = {JobStatus.FAILED: "failed", JobStatus.CANCELLED: "was cancelled"}


@dataclass(frozen=True)
class Claim:
    """The right to run a job: good for as long as the job's fence is this one."""

    job_id: str
    fence: int
    attempt: int


@dataclass(frozen=True)
class Asked:
    """What clients want of a running job: that it stops, that it saves."""

    stop: StopRequest | None
    save: bool


@dataclass(frozen=True)
class JobError:
    """Why a job failed, for the person who meets it: what happened, and what to do."""

    code: str
    message: str
    hint: str

    def document(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


# What a client asks for ----------------------------------------------------------------------------------------------


def submit(
    session: Session,
    owner_id: str,
    spec: JobSpec,
    settings: Settings,
    *,
    idempotency_key: str | None = None,
    request_sha256: str,
) -> tuple[Job, bool]:
    """Store a job and say whether it is new: a known idempotency key gives the job it made.

    Raises InvalidInput where the spec cannot run, or where the key was used with another request; Conflict and TooLarge
    where the owner has as much here as one owner may.
    """
    if idempotency_key and (earlier := _by_idempotency_key(session, owner_id, idempotency_key)):
        if earlier.request_sha256 != request_sha256:
            raise InvalidInput(
                f"Idempotency-Key {idempotency_key!r} was used for another request ({earlier.id}). Use a new key."
            )
        return earlier, False
    limits.require_place(session, owner_id, settings)
    limits.require_room(session, owner_id, 1, settings)
    if isinstance(spec.model, EarlierModel):
        # Its checkpoints are neither thinned out nor deleted before this job is there to need one of them.
        _lock(session, spec.model.checkpoint.job)
    validation = spec.validation.dataset if isinstance(spec.validation, ValidationDataset) else None
    datasets.hold(session, spec.dataset, *([validation] if validation else []))
    if isinstance(spec.tokenizer, UploadedTokenizer):
        # Nor is its tokenizer.
        tokenizers.lock(session, spec.tokenizer.upload)
    prepared = submission.prepare(session, owner_id, spec, settings)
    spec = prepared.spec
    # By the one clock that all APIs share: jobs of one priority are claimed in the order of their ids.
    now = session.execute(sa.select(database_now())).scalar_one()
    job = Job(
        id=new_id("job", now),
        created_at=now,
        owner_id=owner_id,
        name=spec.name,
        status=JobStatus.QUEUED,
        priority=spec.priority,
        spec=spec.document(),
        plan=prepared.plan.model_dump(mode="json"),
        dataset_id=spec.dataset,
        validation_dataset_id=validation,
        tokenizer_id=spec.tokenizer.upload if isinstance(spec.tokenizer, UploadedTokenizer) else None,
        base_checkpoint=prepared.base_checkpoint,
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        max_failures=spec.max_failures,
    )
    session.add(job)
    session.flush()
    tags = {f"{key}:{value}" for key, value in spec.tags.items()}  # "a:b" of "c" and "a" of "b:c" are found as one
    session.add_all(JobTag(job_id=job.id, owner_id=owner_id, tag=tag, status=job.status) for tag in sorted(tags))
    log_event(session, job.id, Event(Cursor(0, 1), "submitted", now, {"name": job.name}))
    announcements(session).ring = True
    return job, True


def request_cancel(session: Session, seer: Seer, job_id: str) -> Job:
    """Cancel a job that waits, or ask a running one to stop. Raises Conflict with the state of one that has ended."""
    job = _locked(session, seer, job_id)
    if job.status in (JobStatus.QUEUED, JobStatus.PAUSED):
        _leave(session, job, JobStatus.CANCELLED, {"reason": f"asked while {job.status}"})
    elif job.status == JobStatus.RUNNING:
        _ask(session, job, stop_requested=StopRequest.CANCEL)
    else:
        raise Conflict(f"{job.id} is already {job.status}: there is nothing to cancel.")
    return job


def request_pause(session: Session, seer: Seer, job_id: str) -> Job:
    """Pause a queued job, or ask a running one to save a checkpoint and free its place. Raises Conflict."""
    job = _locked(session, seer, job_id)
    if job.status == JobStatus.QUEUED:
        _leave(session, job, JobStatus.PAUSED, {"reason": "asked while queued"})
    elif job.status == JobStatus.RUNNING and job.stop_requested != StopRequest.CANCEL:
        _ask(session, job, stop_requested=StopRequest.PAUSE)
    elif job.status == JobStatus.RUNNING:
        raise Conflict(f"{job.id} is about to be cancelled: it cannot be paused any more.")
    else:
        raise Conflict(f"{job.id} is {job.status}: only a queued or running job can be paused.")
    return job


def resume(session: Session, seer: Seer, job_id: str) -> Job:
    """Put a paused job back into the queue, or withdraw a pause that is not yet answered. Raises Conflict."""
    job = _locked(session, seer, job_id)
    if job.status == JobStatus.PAUSED:
        _leave(session, job, JobStatus.QUEUED, {"reason": "asked"}, event="resumed")
        announcements(session).ring = True
    elif job.status == JobStatus.RUNNING and job.stop_requested == StopRequest.PAUSE:
        _ask(session, job, stop_requested=None)
    else:
        raise Conflict(f"{job.id} is {job.status}: only a paused job can be resumed.")
    return job


def retry(session: Session, seer: Seer, job_id: str, settings: Settings) -> Job:
    """Queue a failed or cancelled job again: it goes on from its last checkpoint, with a whole budget of failures.

    Raises Conflict where the job has not ended so, where its data or the checkpoint it starts from is gone, or where
    its owner has as many live jobs as one may.
    """
    job = _locked(session, seer, job_id)
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise Conflict(f"{job.id} is {job.status}: only a failed or cancelled job can be retried.")
    limits.require_place(session, job.owner_id, settings)
    if not checkpoints.newest_resumable(session, job.id):
        _check_beginning(session, job)
    _check_datasets(session, job)
    reason = f"retried after it {_ENDED[JobStatus(job.status)]}"
    _leave(session, job, JobStatus.QUEUED, {"reason": reason}, failures=0, error=sa.null())
    announcements(session).ring = True
    return job


def _check_datasets(session: Session, job: Job) -> None:
    """Keep a job's datasets from being deleted meanwhile. Raises Conflict where one is gone."""
    needed = [job.dataset_id, *([job.validation_dataset_id] if job.validation_dataset_id else [])]
    datasets.hold(session, *needed)
    if lost := [dataset_id for dataset_id in needed if not datasets.is_there(session, dataset_id)]:
        raise Conflict(
            f"{job.id} needs the dataset {lost[0]}, which was deleted. Upload it again, and submit a new job."
        )


def _check_beginning(session: Session, job: Job) -> None:
    """Raise Conflict where what a job begins with is gone."""
    if job.base_checkpoint:
        try:
            checkpoints.at(session, job.base_checkpoint)
        except NotFound as error:
            raise Conflict(f"{job.id} has nothing to go on from. {error.detail}") from error
    if job.tokenizer_id and tokenizers.lock(session, job.tokenizer_id) is None:
        raise Conflict(f"{job.id} cannot begin again: its tokenizer {job.tokenizer_id} was deleted. Submit a new job.")


def request_save(session: Session, seer: Seer, job_id: str) -> Job:
    """Ask a running job for a checkpoint after the update in hand; it goes on. Raises Conflict for any other job."""
    job = _locked(session, seer, job_id)
    if job.status != JobStatus.RUNNING:
        raise Conflict(f"{job.id} is {job.status}: only a running job can save a checkpoint.")
    _ask(session, job, save_requested=True)
    return job


def delete(session: Session, seer: Seer, job_id: str) -> None:
    """Delete a job that has ended, with its log and its checkpoints: at once for clients, soon on the disk.

    Raises Conflict where it has not ended, or where a live job goes on from one of its checkpoints.
    """
    job = _locked(session, seer, job_id)
    if job.status not in TERMINAL:
        raise Conflict(f"{job.id} is {job.status}: cancel it first, and delete it when it has ended.")
    if needed := checkpoints.needed_by_live_jobs(session, checkpoints.all_of(session, job.id)):
        raise Conflict(
            f"{', '.join(sorted(set(needed.values())))} goes on from a checkpoint of {job.id}: end it first."
        )
    job.deleted_at, job.idempotency_key = utc_now(), None
    session.add(job)
    session.flush()
    session.exec(sa.delete(JobTag).where(col(JobTag.job_id) == job_id))


# What a worker does --------------------------------------------------------------------------------------------------


def claim(session: Session, *, worker: str, claim_id: str, lease_seconds: float) -> Claim | None:
    """Take the next claimable job (priority, then age) and return the right to run it; None where there is none.

    After an error during the commit, `recover_claim` tells whether the job was won.
    """
    next_job = (
        select(Job.id)
        .where(col(Job.status) == JobStatus.QUEUED)
        .order_by(*job_queries.QUEUE_ORDER)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    won = session.execute(
        sa.update(Job)
        .where(col(Job.id) == next_job, col(Job.status) == JobStatus.QUEUED)
        .values(
            status=JobStatus.RUNNING,
            fence=col(Job.fence) + 1,
            attempt=col(Job.attempt) + 1,
            claim_id=claim_id,
            worker=worker,
            lease_expires_at=database_now(lease_seconds),
            started_at=sa.func.coalesce(col(Job.started_at), database_now()),
        )
        .returning(col(Job.id), col(Job.fence), col(Job.attempt))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if won is None:
        return None
    claimed = Claim(*won)
    _tag(session, claimed.job_id, JobStatus.RUNNING)
    newest = checkpoints.newest_resumable(session, claimed.job_id)
    data = {"attempt": claimed.attempt, "from_step": newest.step if newest else 0}
    log_event(session, claimed.job_id, Event(Cursor(claimed.fence, 1), "started", utc_now(), data))
    return claimed


def recover_claim(session: Session, claim_id: str) -> Claim | None:
    """Return the claim that was written with this random id, if its commit went through and it still stands."""
    job = session.exec(select(Job).where(Job.claim_id == claim_id, Job.status == JobStatus.RUNNING)).one_or_none()
    return Claim(job.id, job.fence, job.attempt) if job else None


def renew(session: Session, claim: Claim, lease_seconds: float) -> Asked:
    """Lengthen the lease and return what clients asked for meanwhile. Raises FenceLost."""
    row = session.execute(
        _held(claim)
        .values(lease_expires_at=database_now(lease_seconds))
        .returning(col(Job.stop_requested), col(Job.save_requested))
    ).one_or_none()
    if row is None:
        raise FenceLost(f"{claim.job_id} is no longer held under fence {claim.fence}")
    return Asked(StopRequest(row[0]) if row[0] else None, row[1])


def record(session: Session, claim: Claim, events: list[Event], **columns: Any) -> None:
    """Write events of a running job and what its row shows (`progress`, `latest`, `plan`). Raises FenceLost.

    The UPDATE is the guard: on PostgreSQL it holds the row until the commit, so no successor can come in between.
    """
    guard = _held(claim).values(**(columns or {"fence": claim.fence}))
    if session.execute(guard).rowcount != 1:  # type: ignore[attr-defined]
        raise FenceLost(f"{claim.job_id} is no longer held under fence {claim.fence}")
    append(session, claim.job_id, events)
    metrics.fold_in(session, claim.job_id, events)


def stop(session: Session, claim: Claim, reason: str) -> JobStatus:
    """Answer what made the trainer stop, and return the job's new state: cancelled or paused where that was asked.

    Where neither was, the worker gives the job up in good order for `reason`: queued again, at no cost. Raises
    FenceLost.
    """
    asked = _locked_hold(session, claim.job_id, claim.fence).stop_requested
    status, data = JobStatus.QUEUED, {"reason": reason}
    if asked is None:
        announcements(session).ring = True
    else:
        status, data = _ANSWERS[StopRequest(asked)], {"reason": "asked while running"}
    _move(session, (claim.job_id, claim.fence), JobStatus.RUNNING, status, data)
    return status


def lose(session: Session, job_id: str, fence: int, error: JobError) -> JobStatus:
    """End the hold of a worker or a trainer that was lost, and return the job's new state.

    Queued again, or paused if that was asked, at the cost of one failure; failed with `error` when the budget is spent;
    cancelled where a cancel had been accepted. Raises FenceLost.
    """
    job = _locked_hold(session, job_id, fence)
    failures = job.failures + 1
    data = {"reason": error.code, "message": error.message, "failures": failures}
    columns: dict[str, Any] = {"failures": failures}
    if job.stop_requested == StopRequest.CANCEL:
        status = JobStatus.CANCELLED
    elif failures >= job.max_failures:
        status, columns["error"], data = JobStatus.FAILED, error.document(), error.document()
    elif job.stop_requested == StopRequest.PAUSE:
        status = JobStatus.PAUSED
    else:
        status = JobStatus.QUEUED
        announcements(session).ring = True
    _move(session, (job_id, fence), JobStatus.RUNNING, status, data, **columns)
    return status


def succeed(session: Session, claim: Claim, step: int, reason: str | None = None) -> None:
    """End a job well. Raises CancelRequested where a cancel was accepted first, FenceLost.

    `reason` says why it ends before its last epoch. A success without updates and a published checkpoint of the last of
    them would be a lie, and is an EpochdError.
    """
    if step < 1 or not checkpoints.is_published(session, claim.job_id, step):
        raise EpochdError(f"{claim.job_id} ended at step {step} without a published checkpoint of it")
    _move(
        session,
        (claim.job_id, claim.fence),
        JobStatus.RUNNING,
        JobStatus.SUCCEEDED,
        {"attempt": claim.attempt, "step": step} | ({"reason": reason} if reason else {}),
        unless_cancelled=True,
    )


def fail(session: Session, claim: Claim, error: JobError) -> None:
    """End a job that would fail again. Raises CancelRequested where a cancel was accepted first, FenceLost."""
    _move(
        session,
        (claim.job_id, claim.fence),
        JobStatus.RUNNING,
        JobStatus.FAILED,
        error.document(),
        unless_cancelled=True,
        error=error.document(),
    )


# How --------------------------------------------------------------------------------------------------------------


def _held(claim: Claim) -> Any:
    return (
        sa.update(Job)
        .where(col(Job.id) == claim.job_id, col(Job.fence) == claim.fence, col(Job.status) == JobStatus.RUNNING)
        .execution_options(synchronize_session=False)
    )


def _locked_hold(session: Session, job_id: str, fence: int) -> Job:
    job = session.exec(select(Job).where(Job.id == job_id, Job.fence == fence).with_for_update()).one_or_none()
    if job is None or job.status != JobStatus.RUNNING:
        raise FenceLost(f"{job_id} is no longer held under fence {fence}")
    return job


def _leave(session: Session, job: Job, there: JobStatus, data: dict[str, Any], **more: Any) -> None:
    """Move a job that no worker holds, and that this transaction has locked."""
    _move(session, (job.id, job.fence), JobStatus(job.status), there, data, **more)
    session.refresh(job)


def _ask(session: Session, job: Job, **columns: Any) -> None:
    """Put a request into the row of a running job, and tell its supervisor to look."""
    job.sqlmodel_update(columns)
    session.add(job)
    session.flush()
    announcements(session).nudges.append(job.id)


def _move(
    session: Session,
    hold: tuple[str, int],
    here: JobStatus,
    there: JobStatus,
    data: dict[str, Any],
    *,
    unless_cancelled: bool = False,
    event: str | None = None,
    **columns: Any,
) -> None:
    job_id, fence = hold
    columns["finished_at"] = database_now() if there in TERMINAL else None
    if there != JobStatus.QUEUED:
        columns["save_requested"] = False
    guard = [col(Job.id) == job_id, col(Job.fence) == fence, col(Job.status) == here]
    if unless_cancelled:
        guard.append(col(Job.stop_requested).is_distinct_from(StopRequest.CANCEL))
    moved = session.execute(
        sa.update(Job)
        .where(*guard)
        .values(
            status=there,
            fence=fence + 1,
            stop_requested=None,
            worker=None,
            lease_expires_at=None,
            claim_id=None,
            **columns,
        )
        .execution_options(synchronize_session=False)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        job = session.exec(select(Job).where(Job.id == job_id).execution_options(populate_existing=True)).one_or_none()
        if job is not None and job.fence == fence and job.status == here:
            raise CancelRequested(f"{job_id} was asked to stop before it could become {there}")
        raise FenceLost(f"{job_id} is no longer {here} under fence {fence}")
    _tag(session, job_id, there)
    type_ = event or ("requeued" if there == JobStatus.QUEUED else str(there))
    log_event(session, job_id, Event(Cursor(fence + 1, 1), type_, utc_now(), data))


def _tag(session: Session, job_id: str, status: JobStatus) -> None:
    """Write a job's new state beside its tags."""
    session.execute(
        sa.update(JobTag)
        .where(col(JobTag.job_id) == job_id)
        .values(status=status)
        .execution_options(synchronize_session=False)
    )


def _locked(session: Session, seer: Seer, job_id: str) -> Job:
    job_queries.get(session, seer, job_id)
    _lock(session, job_id)
    return job_queries.get(session, seer, job_id)


def _lock(session: Session, job_id: str) -> None:
    session.exec(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).first()


def _by_idempotency_key(session: Session, owner_id: str, key: str) -> Job | None:
    return session.exec(select(Job).where(Job.owner_id == owner_id, Job.idempotency_key == key)).one_or_none()
