"""Curves: the batches of a job without the superseded ones, at full resolution or in buckets."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.models import EventRow

COLUMNS = ("epoch", "batch", "step", "loss", "accuracy", "learning_rate", "grad_norm", "tokens")


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


def batches(session: Session, job_id: str, *, after: int = 0, limit: int | None = None) -> Iterator[Point]:
    """Yield a job's batches in order, from the one after `after` on.

    Of a batch that was run again after a resume, the last run counts.
    """
    newest = (
        select(sa.func.max(EventRow.fence).label("fence"), EventRow.batch)
        .where(EventRow.job_id == job_id, EventRow.type == "batch", col(EventRow.batch) > after)
        .group_by(col(EventRow.batch))
        .order_by(col(EventRow.batch))
        .limit(limit)
        .subquery()
    )
    query = (
        select(*(getattr(EventRow, name) for name in COLUMNS))
        .join(newest, sa.and_(col(EventRow.batch) == newest.c.batch, col(EventRow.fence) == newest.c.fence))
        .where(EventRow.job_id == job_id, EventRow.type == "batch", col(EventRow.batch) > after)
        .order_by(col(EventRow.batch))
        .execution_options(yield_per=1000)
    )
    for row in session.execute(query):
        yield Point(*row)


def curves(session: Session, job_id: str, points: int) -> dict[str, Any]:
    """Return a job's curves as at most `points` buckets of equal size: the mean of each, the loss's span beside it.

    epoch, batch and step are those of the bucket's last batch.
    """
    rows = list(batches(session, job_id))
    size = max(1, -(-len(rows) // points))
    buckets = [rows[start : start + size] for start in range(0, len(rows), size)]
    lasts = [bucket[-1] for bucket in buckets]
    return {
        "epoch": [last.epoch for last in lasts],
        "batch": [last.batch for last in lasts],
        "step": [last.step for last in lasts],
        "loss": [_mean([p.loss for p in bucket]) for bucket in buckets],
        "loss_min": [min(_known([p.loss for p in bucket]), default=None) for bucket in buckets],
        "loss_max": [max(_known([p.loss for p in bucket]), default=None) for bucket in buckets],
        "accuracy": [_mean([p.accuracy for p in bucket]) for bucket in buckets],
        "learning_rate": [_mean([p.learning_rate for p in bucket]) for bucket in buckets],
        "grad_norm": [_mean([p.grad_norm for p in bucket]) for bucket in buckets],
        "validation": _validation(session, job_id),
    }


def _validation(session: Session, job_id: str) -> list[dict[str, Any]]:
    newest: dict[int, dict[str, Any]] = {}
    rows = session.exec(
        select(EventRow)
        .where(EventRow.job_id == job_id, EventRow.type == "epoch")
        .order_by(col(EventRow.fence), col(EventRow.seq))
    )
    for data in (row.data or {} for row in rows):
        if data.get("validation_loss") is not None:
            newest[data["epoch"]] = {
                "epoch": data["epoch"],
                "step": data["step"],
                "loss": data["validation_loss"],
                "accuracy": data["validation_accuracy"],
            }
    return [newest[epoch] for epoch in sorted(newest)]


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: list[float | None]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None
