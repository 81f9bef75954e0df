"""Curves: the batches of a job without the superseded ones, at full resolution or in buckets."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel, col, select

from core.events import Event
from core.models import CurveBlock, EventRow

COLUMNS = ("epoch", "batch", "step", "loss", "accuracy", "learning_rate", "grad_norm", "tokens")
# How many batches make a block. Another number would need the blocks of all jobs made anew.
BLOCK_BATCHES = 100
# A job of more batches is plotted from its blocks: a million batches are ten thousand rows.
WITHOUT_BLOCKS = 50_000


class Point(NamedTuple):
    """One batch."""

    epoch: int
    batch: int
    step: int
    loss: float | None
    accuracy: float | None
    learning_rate: float
    grad_norm: float | None
    tokens: int
    at: datetime


class Validation(NamedTuple):
    """What the rows that are not trained on came to at the end of an epoch."""

    epoch: int
    step: int
    loss: float
    accuracy: float | None
    at: datetime


def last_batch(session: Session, job_id: str) -> int:
    """Return the number of the job's highest batch so far; 0 without any."""
    highest = sa.select(sa.func.max(EventRow.batch)).where(
        col(EventRow.job_id) == job_id, col(EventRow.type) == "batch"
    )
    return session.execute(highest).scalar_one() or 0


def batches(session: Session, job_id: str, first: int, last: int) -> list[Point]:
    """Return a job's batches from one number to another, both of them with it, in order.

    Of a batch that was run again after a resume, the last run counts.
    """
    runs = _newest_runs(job_id, first, last)
    return [
        Point(*row) for row in session.execute(sa.select(*(runs[name] for name in Point._fields)).order_by(runs.batch))
    ]


def fold_in(session: Session, job_id: str, events: Sequence[Event]) -> None:
    """Bring the blocks of the batches among these events up to date, in the transaction that has written them."""
    numbers = [event.data["batch"] for event in events if event.type == "batch"]
    if not numbers:
        return
    first, last = ((number - 1) // BLOCK_BATCHES for number in (min(numbers), max(numbers)))
    span = {"first": first * BLOCK_BATCHES + 1, "last": (last + 1) * BLOCK_BATCHES}
    session.execute(_folding(session.get_bind().dialect.name), {"of_job": job_id, **span})


@cache
def _folding(dialect_name: str) -> Any:
    """Return what brings the blocks of `of_job` up to date that hold the batches from `first` to `last`.

    Made once: to put it together takes longer than to run it, and a worker runs it every second.
    """
    of_job = sa.bindparam("of_job", type_=sa.String)
    runs = _newest_runs(of_job, sa.bindparam("first"), sa.bindparam("last"), BLOCK_BATCHES)
    sums = _sums_of_batches(runs)
    made = sa.select(of_job, runs.bucket, *sums.values()).group_by(runs.bucket)
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    # WHERE, since without one SQLite takes ON CONFLICT for a part of the SELECT.
    insert = dialect.insert(SQLModel.metadata.tables["curve_blocks"]).from_select(
        ["job_id", "block", *sums], made.where(sa.true())
    )
    return insert.on_conflict_do_update(
        index_elements=["job_id", "block"], set_={name: insert.excluded[name] for name in sums}
    )


def curves(session: Session, job_id: str, points: int) -> dict[str, Any]:
    """Return a job's curves as at most `points` buckets of equal size: the mean of each, the loss's span beside it.

    epoch, batch and step are those of the bucket's last batch.
    """
    last = last_batch(session, job_id)
    size = max(1, -(-last // points))
    if last > WITHOUT_BLOCKS:
        size = -(-size // BLOCK_BATCHES) * BLOCK_BATCHES
        bucket: sa.ColumnElement[Any] = (col(CurveBlock.block) // (size // BLOCK_BATCHES)).label("bucket")
        query = sa.select(bucket, *_labelled(_SUMS_OF_BLOCKS)).where(col(CurveBlock.job_id) == job_id)
    else:
        runs = _newest_runs(job_id, 1, last, size)
        bucket = runs.bucket
        query = sa.select(*_labelled(_sums_of_batches(runs)))
    buckets = session.execute(query.group_by(bucket).order_by(bucket)).all()
    return {
        "epoch": [row.epoch for row in buckets],
        "batch": [row.batch for row in buckets],
        "step": [row.step for row in buckets],
        "loss": [_mean(row.loss_sum, row.losses) for row in buckets],
        "loss_min": [row.loss_min for row in buckets],
        "loss_max": [row.loss_max for row in buckets],
        "accuracy": [_mean(row.accuracy_sum, row.accuracies) for row in buckets],
        "learning_rate": [_mean(row.learning_rate_sum, row.batches) for row in buckets],
        "grad_norm": [_mean(row.grad_norm_sum, row.grad_norms) for row in buckets],
        "validation": [
            {"epoch": point.epoch, "step": point.step, "loss": point.loss, "accuracy": point.accuracy}
            for point in validations(session, job_id)
        ],
    }


def validations(session: Session, job_id: str) -> list[Validation]:
    """Return the validation of each epoch, in order: the last, where an epoch ended twice."""
    newest: dict[int, Validation] = {}
    # Sorted here: asked for in order, a database would read the whole log in the order of its key.
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.type == "epoch")
    for row in sorted(session.exec(query), key=lambda row: (row.fence, row.seq)):
        data = row.data or {}
        if data.get("validation_loss") is not None:
            loss, accuracy = data["validation_loss"], data["validation_accuracy"]
            newest[data["epoch"]] = Validation(data["epoch"], data["step"], loss, accuracy, row.at)
    return [newest[epoch] for epoch in sorted(newest)]


def _newest_runs(job_id: Any, first: Any, last: Any, size: int = 1) -> Any:
    """Return the columns of the batches in this range (values, or parameters), of each the run under the highest fence.

    `bucket` counts stretches of `size` batches.
    """
    # The one behind which no other run of the batch comes: one pass in the order of the index, whatever the database
    # knows of the table.
    next_ = sa.func.lead(EventRow.batch).over(order_by=(col(EventRow.batch), col(EventRow.fence)))
    bucket = ((col(EventRow.batch) - 1) // size).label("bucket")
    runs = (
        sa.select(*(getattr(EventRow, name) for name in Point._fields), bucket, next_.label("next"))
        .where(col(EventRow.job_id) == job_id, col(EventRow.type) == "batch", col(EventRow.batch).between(first, last))
        .subquery()
    )
    return sa.select(runs).where(runs.c.next.is_distinct_from(runs.c.batch)).subquery().c


def _sums_of_batches(runs: Any) -> dict[str, sa.ColumnElement[Any]]:
    return {
        "epoch": sa.func.max(runs.epoch),
        "batch": sa.func.max(runs.batch),
        "step": sa.func.max(runs.step),
        "batches": sa.func.count(runs.batch),
        "learning_rate_sum": sa.func.sum(runs.learning_rate),
        "losses": sa.func.count(runs.loss),
        "loss_sum": sa.func.sum(runs.loss),
        "loss_min": sa.func.min(runs.loss),
        "loss_max": sa.func.max(runs.loss),
        "accuracies": sa.func.count(runs.accuracy),
        "accuracy_sum": sa.func.sum(runs.accuracy),
        "grad_norms": sa.func.count(runs.grad_norm),
        "grad_norm_sum": sa.func.sum(runs.grad_norm),
    }


_NOT_SUMMED = dict.fromkeys(("epoch", "batch", "step", "loss_max"), sa.func.max) | {"loss_min": sa.func.min}
_SUMS_OF_BLOCKS: dict[str, sa.ColumnElement[Any]] = {
    name: _NOT_SUMMED.get(name, sa.func.sum)(getattr(CurveBlock, name))
    for name in CurveBlock.model_fields
    if name not in ("job_id", "block")
}


def _labelled(sums: dict[str, sa.ColumnElement[Any]]) -> list[sa.ColumnElement[Any]]:
    return [expression.label(name) for name, expression in sums.items()]


def _mean(total: float | None, count: int) -> float | None:
    return None if total is None else total / count
