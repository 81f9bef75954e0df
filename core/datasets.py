"""The datasets of an owner: rows that point at inspected files in the store."""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Session, col, delete, exists, or_, select

from core.dataset_files import DataFile, Known
from core.dataset_report import Report
from core.errors import Conflict, NotFound
from core.ids import new_id
from core.job_states import TERMINAL
from core.models import Dataset, Job, utc_now
from core.ownership import Seer, seen_by, sees
from core.store import Store


class PlainForm(NamedTuple):
    """The size and hash of the file that is kept, where it is not the uploaded one itself."""

    bytes: int
    sha256: str


def store_key(dataset_id: str) -> str:
    """Return where a dataset's file lies, in its plain form."""
    return f"datasets/{dataset_id}"


def report_key(dataset_id: str) -> str:
    """Return where everything lies that was found in a dataset, if anything was."""
    return f"reports/{dataset_id}"


def read_as(format_name: str, encoding: str) -> str:
    """Return the format that a dataset's row names: `txt.gz`, `parquet`; with an encoding but UTF-8, `txt+gb18030`."""
    return format_name if encoding == "utf-8" else f"{format_name}+{encoding}"


def find_same(session: Session, owner_id: str, *, sha256: str, format_: str, split: str) -> Dataset | None:
    """Return this owner's dataset of the same bytes, read the same way, if there is one."""
    return session.exec(
        select(Dataset).where(
            col(Dataset.owner_id) == owner_id,
            col(Dataset.sha256) == sha256,
            col(Dataset.format) == format_,
            col(Dataset.split) == split,
        )
    ).one_or_none()


def add(
    session: Session,
    owner_id: str,
    *,
    filename: str,
    size: int,
    sha256: str,
    file: DataFile,
    report: Report,
    store: Store,
    format_: str = "",
    plain: PlainForm | None = None,
    findings: Path | None = None,
) -> Dataset:
    """Register an inspected file and move it into the store, in its plain form; `size` and `sha256` are the upload's.

    The move happens inside the transaction: a row without its file cannot be committed.
    """
    dataset = Dataset(
        id=new_id("ds"),
        owner_id=owner_id,
        filename=filename,
        format=format_ or file.format,
        split=file.split,
        bytes=size,
        sha256=sha256,
        plain_format=file.format if plain else None,
        plain_bytes=plain.bytes if plain else None,
        plain_sha256=plain.sha256 if plain else None,
        rows=report.rows,
        columns=report.columns,
        report={key: value for key, value in asdict(report).items() if key not in ("rows", "columns")},
    )
    session.add(dataset)
    session.flush()
    if findings is not None and findings.stat().st_size:
        store.adopt(findings, report_key(dataset.id))
    store.adopt(file.path, store_key(dataset.id))
    return dataset


def get(session: Session, seer: Seer, dataset_id: str) -> Dataset:
    """Return a dataset that the seer sees. Raises NotFound, for another's as for none."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or not sees(seer, dataset) or dataset.deleted_at is not None:
        raise NotFound(f"There is no dataset {dataset_id}. `GET /datasets` lists yours.")
    return dataset


def page(session: Session, seer: Seer, *, limit: int, before: str | None) -> list[Dataset]:
    """Return up to `limit` datasets older than the id `before`, newest first."""
    seen = select(Dataset).where(seen_by(seer, col(Dataset.owner_id)), col(Dataset.deleted_at).is_(None))
    query = seen.order_by(col(Dataset.id).desc()).limit(limit)
    return list(session.exec(query.where(col(Dataset.id) < before) if before else query))


def data_file(dataset: Dataset, store: Store) -> DataFile:
    """Return the dataset's file, local and readable, and what is known of it. Raises Corrupt where it is lost."""
    known = Known(
        bytes=kept_bytes(dataset),
        sha256=dataset.plain_sha256 or dataset.sha256,
        rows=dataset.rows,
        skipped_rows=dataset.report.get("skipped_rows", 0),
        columns=tuple(dataset.columns),
    )
    return DataFile.model_validate(
        {
            "path": store.fetch(store_key(dataset.id)),
            "format": dataset.plain_format or dataset.format,
            "split": dataset.split,
            "known": known,
        }
    )


def kept_bytes(dataset: Dataset) -> int:
    """Return the size of the file in the store."""
    return dataset.bytes if dataset.plain_bytes is None else dataset.plain_bytes


# Deletion ------------------------------------------------------------------------------------------------------------


def hold(session: Session, *dataset_ids: str) -> None:
    """Keep datasets from being deleted until this transaction ends, by when a job may need them."""
    query = select(Dataset.id).where(col(Dataset.id).in_(dataset_ids)).order_by(col(Dataset.id))
    session.exec(query.with_for_update(read=True, key_share=True)).all()


def is_there(session: Session, dataset_id: str) -> bool:
    """Say whether a dataset has not been deleted."""
    query = select(Dataset.id).where(col(Dataset.id) == dataset_id, col(Dataset.deleted_at).is_(None))
    return session.exec(query).first() is not None


def remove(session: Session, seer: Seer, dataset_id: str) -> None:
    """Delete a dataset: for clients at once, and its file as soon as somebody takes that away.

    The row stays as long as a job names it. Raises Conflict where a job that has not ended needs the dataset.
    """
    session.exec(select(Dataset.id).where(col(Dataset.id) == dataset_id).with_for_update()).first()
    dataset = get(session, seer, dataset_id)
    alive = col(Job.status).not_in(TERMINAL) & col(Job.deleted_at).is_(None)
    if job_id := session.exec(select(Job.id).where(_names(dataset_id), alive).limit(1)).first():
        raise Conflict(f"{job_id} needs the dataset, and has not ended. Cancel it, or wait for its end.")
    dataset.deleted_at = utc_now()
    # The same bytes can come again, as a dataset of their own.
    dataset.sha256 = f"deleted {dataset.id}"
    session.add(dataset)


def deleted(session: Session) -> list[str]:
    """Return the ids of the datasets that were deleted and still have a row."""
    return list(session.exec(select(Dataset.id).where(col(Dataset.deleted_at).is_not(None))))


def take_away(session: Session, dataset_id: str) -> None:
    """Delete the row of a deleted dataset, if no job names it any more."""
    gone = col(Dataset.deleted_at).is_not(None)
    session.exec(delete(Dataset).where(col(Dataset.id) == dataset_id, gone, ~exists().where(_names(dataset_id))))


def _names(dataset_id: str) -> sa.ColumnElement[bool]:
    return or_(col(Job.dataset_id) == dataset_id, col(Job.validation_dataset_id) == dataset_id)
