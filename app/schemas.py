"""The bodies of answers, as clients see them; those about datasets are in `app/dataset_schemas.py`."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from core.models import Checkpoint, Job, Tokenizer
from core.run_plan import RunPlan


class Problem(BaseModel):
    """An error (RFC 9457); `detail` says what to do about it."""

    class Fault(BaseModel):
        """One thing wrong with the request: where, and what."""

        loc: list[str | int]
        msg: str

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault]
    report_url: str | None = Field(
        default=None, description="Where all faults of a refused file are, if they are more than `errors` tells."
    )


class _Open(BaseModel):
    """Numbers that a job's worker writes: what is named here and whatever else it knows."""

    model_config = ConfigDict(extra="allow")


# Tokenizers ----------------------------------------------------------------------------------------------------------


class TokenizerBody(BaseModel):
    """An uploaded tokenizer. `end_of_text` is the token that stands behind every row; `lossless` says whether a text of
    many scripts came out of it as it went in.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    filename: str
    format: str
    bytes: int
    sha256: str
    vocab_size: int
    end_of_text: str
    lossless: bool
    created_at: datetime


class TokenizerPage(BaseModel):
    """Tokenizers, newest first."""

    data: list[TokenizerBody]
    next_cursor: str | None

    @classmethod
    def of(cls, found: list[Tokenizer], limit: int) -> "TokenizerPage":
        """Return the page of up to `limit` rows of a query for one more."""
        data = [TokenizerBody.model_validate(row) for row in found[:limit]]
        return cls(data=data, next_cursor=data[-1].id if len(found) > limit else None)


# Jobs ----------------------------------------------------------------------------------------------------------------


class Plan(_Open, RunPlan):
    """The size of a run, and what it takes."""


class Progress(_Open):
    """How far a run is."""

    epoch: int | None = None
    step: int | None = None
    batch: int | None = None
    fraction: float | None = None
    steps_per_second: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    eta_seconds: float | None = None


class Latest(_Open):
    """The newest numbers of a run."""

    loss: float | None = None
    accuracy: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    validation_loss: float | None = None


class JobFailure(BaseModel):
    """Why a job failed, and what to do about it."""

    code: str
    message: str
    hint: str


class JobLinks(BaseModel):
    """Where the rest of a job is."""

    events: str
    stream: str
    metrics: str
    checkpoints: str


class JobBody(BaseModel):
    """A job."""

    id: str
    name: str
    status: str
    stop_requested: str | None
    save_requested: bool
    attempt: int
    failures: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None
    spec: dict[str, Any] = Field(description="the request with every default filled in")
    plan: Plan
    progress: Progress | None
    latest: Latest | None
    error: JobFailure | None
    links: JobLinks

    @classmethod
    def of(cls, job: Job | sa.Row[Any], queue_position: int | None) -> "JobBody":
        """Return a job as clients see it."""
        links = {name: f"/jobs/{job.id}/{name}" for name in JobLinks.model_fields}
        columns = {name: getattr(job, name) for name in cls.model_fields.keys() - {"queue_position", "links"}}
        return cls.model_validate(columns | {"queue_position": queue_position, "links": links})


class JobPage(BaseModel):
    """Jobs, newest first."""

    data: list[JobBody]
    next_cursor: str | None


# Watching ------------------------------------------------------------------------------------------------------------


class EventBody(BaseModel):
    """One thing that happened to a job."""

    id: str
    type: str
    at: datetime
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events in order. `done`: nothing will ever follow them."""

    events: list[EventBody]
    next_after: str
    done: bool


class StreamTicket(BaseModel):
    """What opens a job's WebSocket once, until it expires, in place of a key."""

    ticket: str
    expires_at: datetime


class ValidationPoint(BaseModel):
    """The validation at the end of an epoch."""

    epoch: int
    step: int
    loss: float
    accuracy: float | None


class Curves(BaseModel):
    """A job's curves, one entry of each list for a bucket of batches: means, and the span of the loss.

    `after` is the id of the newest event at that moment: whoever watches from there on misses nothing and sees nothing
    twice.
    """

    epoch: list[int]
    batch: list[int]
    step: list[int]
    loss: list[float | None]
    loss_min: list[float | None]
    loss_max: list[float | None]
    accuracy: list[float | None]
    learning_rate: list[float | None]
    grad_norm: list[float | None]
    validation: list[ValidationPoint]
    after: str


# Checkpoints ---------------------------------------------------------------------------------------------------------


class CheckpointFile(BaseModel):
    """One file of a checkpoint."""

    name: str
    bytes: int
    sha256: str
    url: str


class CheckpointMetrics(BaseModel):
    """The numbers at the time of a checkpoint."""

    model_config = ConfigDict(from_attributes=True)

    loss: float | None
    accuracy: float | None
    validation_loss: float | None


class CheckpointBody(BaseModel):
    """A published checkpoint: complete, with the hash of every file. Its addresses name these very bytes for good."""

    epoch: int
    step: int
    bytes: int
    metrics: CheckpointMetrics
    created_at: datetime
    best: bool
    files: list[CheckpointFile]
    archive_url: str
    manifest_url: str

    @classmethod
    def of(cls, row: Checkpoint) -> "CheckpointBody":
        """Return a checkpoint as clients see it."""
        base, pin = f"/jobs/{row.job_id}/checkpoints/{row.epoch}", f"?manifest={row.manifest_sha256}"
        return cls(
            epoch=row.epoch,
            step=row.step,
            bytes=row.bytes,
            metrics=CheckpointMetrics.model_validate(row),
            created_at=row.created_at,
            best=row.best,
            files=[CheckpointFile(**file, url=f"{base}/files/{quote(file['name'])}{pin}") for file in row.files],
            archive_url=f"{base}/archive{pin}",
            manifest_url=f"{base}/manifest{pin}",
        )


class CheckpointList(BaseModel):
    """A job's checkpoints, newest first."""

    data: list[CheckpointBody]


# Service -------------------------------------------------------------------------------------------------------------


class Alive(BaseModel):
    """The process answers."""

    status: str


class PartState(BaseModel):
    """How one of the parts that the API needs is doing."""

    state: str
    detail: str | None = None


class Readiness(BaseModel):
    """How the whole is doing: `ready`, `degraded` (Redis is away: waiting jobs wait), or `unavailable`."""

    status: str
    database: PartState
    redis: PartState
    store: PartState
