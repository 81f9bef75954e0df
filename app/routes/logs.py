"""What a job's trainers wrote: where to look when one has failed for no reason that it could tell."""

from fastapi import APIRouter

from app.dependencies import JobId, Reader, Work
from app.openapi import problems
from app.schemas import TrainerLog, TrainerLogs
from core import job_queries, trainer_output

router = APIRouter(tags=["watching"])


@router.get(
    "/jobs/{job_id}/logs",
    operation_id="get_logs",
    summary="Read the end of what the trainers of a job's last attempts wrote",
    responses=problems(404),
)
def read(caller: Reader, work: Work, job_id: JobId) -> TrainerLogs:
    """Return the output of each attempt, newest first; one whose trainer wrote nothing is not there."""
    with work.reading() as session:
        job_queries.get(session, caller.sees, job_id)
        found = trainer_output.of_job(session, job_id)
        return TrainerLogs(data=[TrainerLog.model_validate(row) for row in found])
