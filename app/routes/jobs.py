"""Jobs: submit, list, read, cancel."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from app.dependencies import IdempotencyKey, JobId, Paging, Reader, Status, Tag, TheSettings, Work, Writer
from app.json_body import JobSpecBody
from app.openapi import json_request, problems
from app.schemas import JobBody, JobPage, Plan
from core import job_queries, jobs, submission
from core.models import Job

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs",
    status_code=201,
    operation_id="create_job",
    summary="Submit a job, or with `?dry_run=true` ask for its plan alone",
    responses={
        201: {"headers": {"Location": {"schema": {"type": "string"}}}},
        200: {"model": JobBody | Plan, "description": "The job that an earlier try has made, or the plan alone."},
        **problems(413, 415),
    },
    openapi_extra=json_request("JobSpec"),
)
def create(
    response: Response,
    caller: Writer,
    work: Work,
    settings: TheSettings,
    body: JobSpecBody,
    *,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Check the job and return its plan; store nothing.")] = False,
) -> JobBody | Plan:
    """Store a job; a worker takes it up when its turn has come."""

    def submit() -> tuple[JobBody, bool]:
        with work.begin() as session:
            job, new = jobs.submit(
                session,
                caller.owner_id,
                body.spec,
                settings,
                idempotency_key=idempotency_key,
                request_sha256=body.sha256,
            )
            return _body(session, job), new

    if dry_run:
        response.status_code = 200
        with work.reading() as session:
            return Plan.model_validate(submission.prepare(session, caller.owner_id, body.spec, settings).plan)
    try:
        job, new = submit()
    except sa.exc.IntegrityError:
        # Another request with the same key was quicker, or the dataset has just gone: the second look tells.
        job, new = submit()
    response.headers["Location"] = f"/jobs/{job.id}"
    if not new:
        response.status_code = 200
    return job


@router.get("/jobs", operation_id="list_jobs", summary="List jobs, newest first", responses=problems())
def list_(caller: Reader, work: Work, paging: Paging, status: Status = None, tag: Tag = None) -> JobPage:
    """Return the caller's jobs."""
    with work.reading() as session:
        found = job_queries.page(
            session, caller.owner_id, limit=paging.limit + 1, before=paging.before, status=status, tag=tag
        )
        data = [_body(session, job) for job in found[: paging.limit]]
    return JobPage(data=data, next_cursor=data[-1].id if len(found) > paging.limit else None)


@router.get("/jobs/{job_id}", operation_id="get_job", summary="Read a job", responses=problems(404))
def read(caller: Reader, work: Work, job_id: JobId) -> JobBody:
    """Return one of the caller's jobs."""
    with work.reading() as session:
        return _body(session, job_queries.get(session, caller.owner_id, job_id))


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a queued job, or ask a running one to stop with a checkpoint",
    responses=problems(404, 409),
)
def cancel(caller: Writer, work: Work, job_id: JobId) -> JobBody:
    """Return the job: cancelled, or with the request standing in `stop_requested`."""
    with work.begin() as session:
        return _body(session, jobs.request_cancel(session, caller.owner_id, job_id))


def _body(session: Session, job: Job) -> JobBody:
    return JobBody.of(job, job_queries.queue_position(session, job))
