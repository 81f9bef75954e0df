"""The tables. Every row a client can name belongs to an owner. Only the migrations in `alembic/` make them."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from core.database import UtcDateTime


def utc_now() -> datetime:
    """Return this process's time: for what people read, never for leases."""
    return datetime.now(UTC)


_DELETED = sa.text("deleted_at IS NOT NULL")


class Owner(SQLModel, table=True):
    """Whose keys, datasets and jobs these are."""

    __tablename__ = "owners"

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class Key(SQLModel, table=True):
    """A bearer key: only its hash, found by its prefix."""

    __tablename__ = "keys"

    id: str = Field(primary_key=True)
    owner_id: str = Field(foreign_key="owners.id", index=True)
    prefix: str = Field(index=True)
    sha256: str
    scopes: list[str] = Field(sa_type=sa.JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Dataset(SQLModel, table=True):
    """An uploaded file that passed inspection; its plain form lies in the store under `datasets/<id>`.

    `format` is how it was read (`core/datasets.py` writes it), `bytes` and `sha256` are those of the upload. The plain
    form has its own where it is another file.
    """

    __tablename__ = "datasets"
    __table_args__ = (sa.UniqueConstraint("owner_id", "sha256", "format", "split"),)

    id: str = Field(primary_key=True)
    owner_id: str = Field(foreign_key="owners.id", index=True)
    filename: str
    format: str
    split: str
    bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str
    plain_format: str | None = None
    plain_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    plain_sha256: str | None = None
    rows: int = Field(sa_type=sa.BigInteger)
    columns: list[str] = Field(sa_type=sa.JSON)
    report: dict[str, Any] = Field(sa_type=sa.JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    # Nobody sees it any more; its row goes when no job names it.
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Upload(SQLModel, table=True):
    """A file on its way, in as many requests as it takes; what has come lies in the store under `uploads/<id>`."""

    __tablename__ = "uploads"
    __table_args__ = (sa.UniqueConstraint("owner_id", "request_sha256"),)

    id: str = Field(primary_key=True)
    owner_id: str = Field(foreign_key="owners.id")
    # Of all that was announced: who announces the same again goes on with this one.
    request_sha256: str
    filename: str
    bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str
    split: str | None = None
    encoding: str | None = None
    # What became of it. It need not be there any more.
    dataset_id: str | None = None
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    touched_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime, index=True)


class Tokenizer(SQLModel, table=True):
    """An uploaded tokenizer; what the trainer reads of it lies in the store under `tokenizers/<id>`.

    `bytes` and `sha256` are those of the upload, `content_sha256` of what lies in the store.
    """

    __tablename__ = "tokenizers"
    __table_args__ = (sa.UniqueConstraint("owner_id", "sha256"),)

    id: str = Field(primary_key=True)
    owner_id: str = Field(foreign_key="owners.id", index=True)
    filename: str
    bytes: int = Field(sa_type=sa.BigInteger)
    sha256: str
    vocab_size: int
    format: str = Field(sa_column_kwargs={"server_default": ""})
    end_of_text: str = Field(sa_column_kwargs={"server_default": ""})
    content_sha256: str = Field(sa_column_kwargs={"server_default": ""})
    # Whether a text of many scripts came out of it as it went in.
    lossless: bool = Field(sa_column_kwargs={"server_default": sa.false()})
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    # Nobody sees it any more; its row goes with its file.
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Job(SQLModel, table=True):
    """A training job. `core/jobs.py` alone writes `status` and what guards it (`fence`, `claim_id`, the lease)."""

    __tablename__ = "jobs"
    __table_args__ = (
        sa.UniqueConstraint("owner_id", "idempotency_key"),
        sa.Index("ix_jobs_claimable", "status", sa.text("priority DESC"), "id"),
        sa.Index("ix_jobs_listing", "owner_id", "id"),
        sa.Index("ix_jobs_listing_by_status", "owner_id", "status", "id"),
        sa.Index("ix_jobs_by_status", "status", "id"),
        sa.Index("ix_jobs_deleted", "deleted_at", sqlite_where=_DELETED, postgresql_where=_DELETED),
    )

    id: str = Field(primary_key=True)
    owner_id: str = Field(foreign_key="owners.id")
    name: str
    status: str
    stop_requested: str | None = None
    # Asked for a checkpoint now; stands until one is listed that answers it.
    save_requested: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    priority: int
    spec: dict[str, Any] = Field(sa_type=sa.JSON)
    plan: dict[str, Any] = Field(sa_type=sa.JSON)
    dataset_id: str = Field(foreign_key="datasets.id", index=True)
    validation_dataset_id: str | None = Field(default=None, foreign_key="datasets.id")
    # Of an uploaded one. No foreign key: it may go when the job has ended, and the job's checkpoints hold a copy.
    tokenizer_id: str | None = Field(default=None, index=True)

    # The store's key of the very checkpoint that the job goes on from: an epoch's number can come to mean another one.
    base_checkpoint: str | None = Field(default=None, index=True)

    idempotency_key: str | None = None
    request_sha256: str

    # Grows with every claim, requeue, drain and end; whoever holds the current value is the only writer.
    fence: int = 0
    attempt: int = 0
    # Losses since the last checkpoint; at max_failures the job fails.
    failures: int = 0
    max_failures: int
    claim_id: str | None = None
    worker: str | None = None
    lease_expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    progress: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    latest: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    error: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    # Nobody sees it any more; a worker removes its files and then its rows.
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Ticket(SQLModel, table=True):
    """Opens one job's stream once: only its hash, and the key it was made with."""

    __tablename__ = "tickets"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    sha256: str = Field(primary_key=True)
    key_id: str = Field(foreign_key="keys.id")
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class JobTag(SQLModel, table=True):
    """A tag of a job as `key:value`, for finding it; the job's spec holds the tags as they were given.

    `status` is the job's: a list of the few in one state, of many with one tag, is read from one index.
    """

    __tablename__ = "job_tags"
    __table_args__ = (
        sa.Index("ix_job_tags_listing", "owner_id", "tag", "job_id"),
        sa.Index("ix_job_tags_listing_by_status", "owner_id", "tag", "status", "job_id"),
        sa.Index("ix_job_tags_by_tag", "tag", "job_id"),
        sa.Index("ix_job_tags_by_status", "tag", "status", "job_id"),
    )

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    tag: str = Field(primary_key=True)
    owner_id: str = Field(foreign_key="owners.id")
    status: str = Field(sa_column_kwargs={"server_default": ""})


class EventRow(SQLModel, table=True):
    """One event of a job's log. The numbers of a `batch` stand in columns, so that curves are a query."""

    __tablename__ = "events"
    __table_args__ = (sa.Index("ix_events_curve", "job_id", "type", "batch", "fence"),)

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    fence: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    type: str
    at: datetime = Field(sa_type=UtcDateTime)
    data: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))
    epoch: int | None = None
    batch: int | None = None
    step: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    learning_rate: float | None = None
    tokens: int | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None


class CurveBlock(SQLModel, table=True):
    """What the newest runs of a stretch of a job's batches come to, so that nobody has to read a long log to plot it.

    Block 0 holds the batches from 1 on; `core/metrics.py` says how many. Losses, accuracies and gradient norms may be
    missing, so each has its count.
    """

    __tablename__ = "curve_blocks"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    block: int = Field(primary_key=True)
    # Of its last batch.
    epoch: int
    batch: int
    step: int
    batches: int
    learning_rate_sum: float
    losses: int
    loss_sum: float | None = None
    loss_min: float | None = None
    loss_max: float | None = None
    accuracies: int
    accuracy_sum: float | None = None
    grad_norms: int
    grad_norm_sum: float | None = None


class TrainerOutput(SQLModel, table=True):
    """The end of what the trainer of one attempt wrote; `lines` is how many lines that were in all."""

    __tablename__ = "trainer_outputs"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    fence: int = Field(primary_key=True)
    attempt: int
    lines: int = Field(sa_type=sa.BigInteger)
    text: str
    updated_at: datetime = Field(sa_type=UtcDateTime)


class Checkpoint(SQLModel, table=True):
    """A published checkpoint: complete, hashed, and in the store under `checkpoints/<job>/<fence>-<step>`."""

    __tablename__ = "checkpoints"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    fence: int = Field(primary_key=True)
    step: int = Field(primary_key=True)
    epoch: int
    bytes: int = Field(sa_type=sa.BigInteger)
    manifest_sha256: str
    # Of the model folder, which clients download: name, bytes, sha256.
    files: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    # Of the state folder, which a resume needs; empty once newer states made it superfluous.
    state_files: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    loss: float | None = None
    accuracy: float | None = None
    validation_loss: float | None = None
    best: bool = False
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
