"""A job's curves: in buckets for a plot, or every batch as CSV or for TensorBoard."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from starlette.responses import StreamingResponse

from app.dependencies import JobId, Reader, Work
from app.openapi import problems
from app.schemas import Curves
from core import event_file, events, job_queries, metrics
from core.events import START
from core.unit_of_work import UnitOfWork

router = APIRouter(tags=["watching"])

_OCTETS = "application/octet-stream"
# So many numbers are read in one go, so that no transaction is open while a slow client takes its time.
_PAGE_BATCHES = 5000


@router.get(
    "/jobs/{job_id}/metrics",
    operation_id="get_metrics",
    summary="Read a job's curves: at most `points` of each, or all of them as CSV or as TensorBoard's event file",
    response_model=Curves,
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                _OCTETS: {"schema": {"type": "string", "format": "binary"}},
            }
        },
        **problems(404),
    },
)
def read(
    caller: Reader,
    work: Work,
    job_id: JobId,
    points: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    format: Literal["json", "csv", "tensorboard"] = "json",
) -> Response | Curves:
    """Return curves without the steps that were run again after a resume."""
    with work.reading() as session:
        job = job_queries.get(session, caller.sees, job_id)
        if format == "json":
            newest = events.newest(session, job_id)
            after = str(newest.cursor if newest else START)
            return Curves.model_validate(metrics.curves(session, job_id, points) | {"after": after})
        last, validations = metrics.last_batch(session, job_id), metrics.validations(session, job_id)
    if format == "csv":
        return _file(_csv(work, job_id, last), f"{job_id}.csv", "text/csv")
    batches = chain.from_iterable(_pages(work, job_id, last))
    records = event_file.records(job.created_at, batches, validations)
    return _file(records, event_file.name(job.created_at, job_id), _OCTETS)


def _file(content: Iterator[str] | Iterator[bytes], filename: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return StreamingResponse(content, media_type=media_type, headers=headers)


def _pages(work: UnitOfWork, job_id: str, last: int) -> Iterator[list[metrics.Point]]:
    for first in range(1, last + 1, _PAGE_BATCHES):
        with work.reading() as session:
            page = metrics.batches(session, job_id, first, first + _PAGE_BATCHES - 1)
        yield page


def _csv(work: UnitOfWork, job_id: str, last: int) -> Iterator[str]:
    yield ",".join(metrics.COLUMNS) + "\n"
    for page in _pages(work, job_id, last):
        yield "".join(
            ",".join("" if value is None else str(value) for value in point[: len(metrics.COLUMNS)]) + "\n"
            for point in page
        )
