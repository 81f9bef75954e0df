"""A received file becomes a dataset: told by its name and content, looked through, and kept in its plain form."""

from pathlib import Path

import anyio.to_thread
import sqlalchemy as sa
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict

from app.looking import EarlyLook, look
from app.resources import Resources
from app.upload import Received
from core import datasets, limits, refusals
from core.dataset_files import DataFile, Split
from core.dataset_report import Report
from core.datasets import PlainForm
from core.errors import InvalidInput
from core.inspection import Order, Outcome, plain_format
from core.models import Dataset
from core.settings import Settings
from core.upload_formats import encoding_of, recognise


class Reading(BaseModel):
    """How the client wants a file to be read, as far as they said."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    split: Split | None = None
    encoding: str | None = None

    def order(self, path: Path, filename: str, settings: Settings) -> Order:
        """Return the order to look through a file, as far as its beginning is there. What is made of it goes beside it.

        Raises InvalidInput for a file of a format that epochd does not read, or not so.
        """
        format_ = recognise(path, filename)
        encoding = encoding_of(self.encoding, format_)
        if self.split and format_.inner != "txt":
            raise InvalidInput.at(
                ("query", "split"), "split says what a row of a .txt is: leave it out for other formats."
            )
        return Order(
            path=path,
            format=format_,
            encoding=encoding,
            split=self.split or "blank_line",
            plain=path.with_name("plain"),
            findings=path.with_name("findings"),
            max_faults=refusals.MOST_FAULTS,
            max_bytes=settings.max_upload_bytes,
            max_memory_bytes=settings.inspection_memory_bytes,
            max_seconds=settings.inspection_seconds,
        )


async def keep(
    resources: Resources, owner_id: str, received: Received, reading: Reading, early: EarlyLook | None = None
) -> tuple[Dataset, bool]:
    """Return the dataset of a received file, and whether it is new. `early` may have begun to look through it.

    Raises InvalidInput, with the first faults and their lines, for a file that cannot be used, and TooLarge for one
    that the owner has no room for.
    """
    order = await run_in_threadpool(reading.order, received.path, received.filename, resources.settings)
    if same := await run_in_threadpool(_same, resources, owner_id, received, order):
        return same, False
    if early and early.has_begun:
        outcome = await early.outcome()
    else:
        outcome = await anyio.to_thread.run_sync(look, resources, owner_id, order, limiter=resources.inspections)
    return await run_in_threadpool(_added, resources, owner_id, received, order, outcome)


def _added(
    resources: Resources, owner_id: str, received: Received, order: Order, outcome: Outcome
) -> tuple[Dataset, bool]:
    file = DataFile(
        path=order.path if order.is_plain else order.plain, format=plain_format(order.format), split=order.split
    )
    try:
        with resources.work.begin() as session:
            limits.require_room(session, owner_id, file.path.stat().st_size, resources.settings)
            dataset = datasets.add(
                session,
                owner_id,
                filename=received.filename,
                size=received.size,
                sha256=received.sha256,
                file=file,
                report=Report(**outcome.report),
                store=resources.store,
                format_=_read_as(order),
                plain=None if order.is_plain else PlainForm(outcome.bytes, outcome.sha256),
                findings=order.findings,
            )
        return dataset, True
    except sa.exc.IntegrityError:
        # The same bytes were uploaded at the same time, and the other upload was quicker.
        if same := _same(resources, owner_id, received, order):
            return same, False
        raise


def _read_as(order: Order) -> str:
    return datasets.read_as(order.format.name, order.encoding)


def _same(resources: Resources, owner_id: str, received: Received, order: Order) -> Dataset | None:
    with resources.work.reading() as session:
        found = datasets.find_same(
            session, owner_id, sha256=received.sha256, format_=_read_as(order), split=order.split
        )
        if found:
            session.expunge(found)
        return found
