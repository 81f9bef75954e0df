"""Jobs: submit, list, read, delete, and what is asked of one: cancel, pause, resume, retry, save."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import anyio.to_thread
import sqlalchemy as sa
from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from app.dependencies import IdempotencyKey, JobId, Paging, Reader, Status, Tag, TheResources, Work, Writer
from app.json_body import JobSpecBody, SpecBody
from app.openapi import json_request, leads_to, problems
from app.resources import Resources
from app.schemas import JobBody, JobPage, Plan
from core import job_queries, jobs, look_ahead, run_estimate, submission
from core.failpoints import reach
from core.job_spec import JobSpec
from core.keys import Caller
from core.models import Job
from core.ownership import Seer
from core.unit_of_work import UnitOfWork

router = APIRouter(tags=["jobs"])

_OF_A_JOB = (
    *("get_job", "cancel_job", "pause_job", "resume_job", "retry_job", "save_checkpoint", "delete_job"),
    *("poll_events", "create_stream_ticket", "get_metrics", "list_checkpoints"),
)

# For the reader of the OpenAPI document; the dataset is their own.
SMALLEST = {"dataset": "ds_01jdz3b9n6q2w8x4v7t5r1m0kc"}
EXAMPLE = {
    "name": "docs-gpt",
    "dataset": "ds_01jdz3b9n6q2w8x4v7t5r1m0kc",
    "validation": {"fraction": 0.05},
    "tokenizer": {"train": {"vocab_size": 2048}},
    "model": {"config": {"model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 256}},
    "sequence": {"mode": "document", "max_length": 128, "stride": 64},
    "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "lr_scheduler": "cosine", "warmup_ratio": 0.05},
    "samples": {"prompts": ["The import statement"], "max_new_tokens": 40},
    "checkpoints": {"every_epochs": 1, "keep": 3},
    "tags": {"team": "docs"},
}


@router.post(
    "/jobs",
    status_code=201,
    operation_id="create_job",
    summary="Submit a job, or with `?dry_run=true` ask for its plan alone",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}, **leads_to("job_id", *_OF_A_JOB)},
        200: {"model": JobBody | Plan, "description": "The job that an earlier try has made, or the plan alone."},
        **problems(408, 409, 413, 415),
    },
    openapi_extra=json_request("JobSpec", smallest=SMALLEST, all=EXAMPLE),
)
async def create(
    response: Response,
    caller: Writer,
    resources: TheResources,
    body: JobSpecBody,
    *,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Check the job and return its plan; store nothing.")] = False,
) -> JobBody | Plan:
    """Store a job; a worker takes it up when its turn has come."""
    if dry_run:
        response.status_code = 200
        plan = partial(_plan, resources, caller.owner_id, body.spec)
        return await anyio.to_thread.run_sync(plan, limiter=resources.looks)
    submit = partial(_submit, resources, caller.owner_id, body, idempotency_key)
    try:
        job, new = await anyio.to_thread.run_sync(submit)
    except sa.exc.IntegrityError:
        # Another request with the same key was quicker, or the dataset has just gone: the second look tells.
        job, new = await anyio.to_thread.run_sync(submit)
    reach("submitted")
    response.headers["Location"] = f"/jobs/{job.id}"
    if not new:
        response.status_code = 200
    return job


@router.get("/jobs", operation_id="list_jobs", summary="List jobs, newest first", responses=problems())
def list_(caller: Reader, work: Work, paging: Paging, status: Status = None, tag: Tag = None) -> JobPage:
    """Return the caller's jobs."""
    with work.reading() as session:
        found = job_queries.page(
            session, caller.sees, limit=paging.limit + 1, before=paging.before, status=status, tag=tag
        )
        positions = job_queries.queue_positions(session, found)
        data = [JobBody.of(job, positions.get(job.id)) for job in found[: paging.limit]]
    return JobPage(data=data, next_cursor=data[-1].id if len(found) > paging.limit else None)


@router.get("/jobs/{job_id}", operation_id="get_job", summary="Read a job", responses=problems(404))
def read(caller: Reader, work: Work, job_id: JobId) -> JobBody:
    """Return one of the caller's jobs."""
    with work.reading() as session:
        return _body(session, job_queries.get(session, caller.sees, job_id))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    operation_id="delete_job",
    summary="Delete a job that has ended, with its log and its checkpoints",
    responses=problems(404, 409),
)
def delete(caller: Writer, work: Work, job_id: JobId) -> None:
    """Return nothing: the job, its events and its checkpoints are gone."""
    with work.begin() as session:
        jobs.delete(session, caller.sees, job_id)


# What is asked of a job ----------------------------------------------------------------------------------------------


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a waiting job, or ask a running one to stop with a checkpoint",
    responses=problems(404, 409),
)
def cancel(caller: Writer, work: Work, job_id: JobId) -> JobBody:
    """Return the job: cancelled, or with the request standing in `stop_requested`."""
    return _asked(jobs.request_cancel, caller, work, job_id)


@router.post(
    "/jobs/{job_id}/pause",
    operation_id="pause_job",
    summary="Pause a queued job, or ask a running one to save a checkpoint and free its device",
    responses=problems(404, 409),
)
def pause(caller: Writer, work: Work, job_id: JobId) -> JobBody:
    """Return the job: paused, or with the request standing in `stop_requested`."""
    return _asked(jobs.request_pause, caller, work, job_id)


@router.post(
    "/jobs/{job_id}/resume",
    operation_id="resume_job",
    summary="Queue a paused job again, or withdraw a pause that is not yet answered",
    responses=problems(404, 409),
)
def resume(caller: Writer, work: Work, job_id: JobId) -> JobBody:
    """Return the job: queued, and to go on from its last checkpoint."""
    return _asked(jobs.resume, caller, work, job_id)


@router.post(
    "/jobs/{job_id}/retry",
    operation_id="retry_job",
    summary="Queue a failed or cancelled job again",
    responses=problems(404, 409),
)
def retry(caller: Writer, resources: TheResources, job_id: JobId) -> JobBody:
    """Return the job: queued, and to go on from its last checkpoint, or from the beginning where it has none."""
    with resources.work.begin() as session:
        return _body(session, jobs.retry(session, caller.sees, job_id, resources.settings))


@router.post(
    "/jobs/{job_id}/checkpoints",
    status_code=202,
    operation_id="save_checkpoint",
    summary="Ask a running job for a checkpoint now; it goes on",
    responses=problems(404, 409),
)
def save(caller: Writer, work: Work, job_id: JobId) -> JobBody:
    """Return the job: `save_requested` stands until the checkpoint is listed."""
    return _asked(jobs.request_save, caller, work, job_id)


def _submit(resources: Resources, owner_id: str, body: SpecBody, idempotency_key: str | None) -> tuple[JobBody, bool]:
    with resources.work.begin() as session:
        job, new = jobs.submit(
            session,
            owner_id,
            body.spec,
            resources.settings,
            idempotency_key=idempotency_key,
            request_sha256=body.sha256,
        )
        reach("submit")
        return _body(session, job), new


def _plan(resources: Resources, owner_id: str, spec: JobSpec) -> Plan:
    """Return a job's plan, its tokens counted in a process of its own: all of a small dataset, else a sample."""
    with resources.work.reading() as session:
        prepared = submission.prepare(session, owner_id, spec, resources.settings)
        question = look_ahead.question(session, owner_id, resources.store, prepared)
    return Plan.model_validate(run_estimate.estimated(question).model_dump())


def _asked(ask: Callable[[Session, Seer, str], Job], caller: Caller, work: UnitOfWork, job_id: str) -> JobBody:
    with work.begin() as session:
        return _body(session, ask(session, caller.sees, job_id))


def _body(session: Session, job: Job) -> JobBody:
    return JobBody.of(job, job_queries.queue_positions(session, [job]).get(job.id))
