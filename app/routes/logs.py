"""What a job's trainers wrote: where to look when one has failed for no reason that it could tell."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.dependencies import JobId, Reader, Work
from app.openapi import problems
from core import job_queries, trainer_output

router = APIRouter(tags=["watching"])


class TrainerLog(BaseModel):
    """The end of what the trainer of one attempt wrote; `lines` is how many lines that were in all."""

    model_config = ConfigDict(from_attributes=True)

    attempt: int
    lines: int
    text: str
    updated_at: datetime


class TrainerLogs(BaseModel):
    """What the trainers of a job's last attempts wrote, newest first."""

    data: list[TrainerLog]


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
