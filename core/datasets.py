"""The datasets of an owner: rows that point at inspected files in the store."""

from dataclasses import asdict

from sqlmodel import Session, col, select

from core.dataset_files import DataFile, Known, Report
from core.errors import NotFound
from core.ids import new_id
from core.models import Dataset
from core.store import Store


def store_key(dataset_id: str) -> str:
    """Return where a dataset's file lies."""
    return f"datasets/{dataset_id}"


def find_same(session: Session, owner_id: str, *, sha256: str, file: DataFile) -> Dataset | None:
    """Return this owner's dataset of the same bytes, read the same way, if there is one."""
    return session.exec(
        select(Dataset).where(
            col(Dataset.owner_id) == owner_id,
            col(Dataset.sha256) == sha256,
            col(Dataset.format) == file.format,
            col(Dataset.split) == file.split,
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
) -> Dataset:
    """Register an inspected file and move it into the store.

    The move happens inside the transaction: a row without its file cannot be committed.
    """
    dataset = Dataset(
        id=new_id("ds"),
        owner_id=owner_id,
        filename=filename,
        format=file.format,
        split=file.split,
        bytes=size,
        sha256=sha256,
        rows=report.rows,
        columns=report.columns,
        report={key: value for key, value in asdict(report).items() if key not in ("rows", "columns")},
    )
    session.add(dataset)
    session.flush()
    store.adopt(file.path, store_key(dataset.id))
    return dataset


def get(session: Session, owner_id: str, dataset_id: str) -> Dataset:
    """Return one of this owner's datasets. Raises NotFound, for another's as for none."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.owner_id != owner_id:
        raise NotFound(f"There is no dataset {dataset_id}. `GET /datasets` lists yours.")
    return dataset


def page(session: Session, owner_id: str, *, limit: int, before: str | None) -> list[Dataset]:
    """Return up to `limit` datasets older than the id `before`, newest first."""
    query = select(Dataset).where(col(Dataset.owner_id) == owner_id).order_by(col(Dataset.id).desc()).limit(limit)
    return list(session.exec(query.where(col(Dataset.id) < before) if before else query))


def data_file(dataset: Dataset, store: Store) -> DataFile:
    """Return the dataset's file, local and readable, and what is known of it. Raises Corrupt where it is lost."""
    known = Known(
        bytes=dataset.bytes,
        sha256=dataset.sha256,
        rows=dataset.rows,
        skipped_rows=dataset.report.get("skipped_rows", 0),
        columns=tuple(dataset.columns),
    )
    return DataFile.model_validate(
        {"path": store.fetch(store_key(dataset.id)), "format": dataset.format, "split": dataset.split, "known": known}
    )
