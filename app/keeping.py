"""A received file becomes a dataset: told by its name and content, looked through, and kept in its plain form."""

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from app.resources import Resources
from app.upload import Received
from core import datasets
from core.dataset_files import DataFile, Split
from core.dataset_report import Report
from core.datasets import PlainForm
from core.errors import InvalidInput
from core.inspection import Order, plain_format
from core.inspector import look_through
from core.models import Dataset
from core.plain_form import is_plain
from core.upload_formats import encoding_of, recognise


class Reading(BaseModel):
    """How the client wants a file to be read, as far as they said."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    split: Split | None = None
    encoding: str | None = None


def keep(resources: Resources, owner_id: str, received: Received, reading: Reading) -> tuple[Dataset, bool]:
    """Return the dataset of a received file, and whether it is new.

    Raises InvalidInput, with the first faults and their lines, for a file that cannot be used.
    """
    format_ = recognise(received.path, received.filename)
    encoding = encoding_of(reading.encoding, format_)
    if reading.split and format_.inner != "txt":
        raise InvalidInput.at(("query", "split"), "split says what a row of a .txt is: leave it out for other formats.")
    split = reading.split or "blank_line"
    read_as = datasets.read_as(format_.name, encoding)
    if same := _same(resources, owner_id, received, read_as, split):
        return same, False
    settings = resources.settings
    with resources.store.incoming() as folder:
        folder.mkdir()
        plain, findings = folder / "plain", folder / "findings"
        outcome = look_through(
            Order(
                path=received.path,
                format=format_,
                encoding=encoding,
                split=split,
                plain=plain,
                findings=findings,
                max_bytes=settings.max_upload_bytes,
                max_memory_bytes=settings.inspection_memory_bytes,
                max_seconds=settings.inspection_seconds,
            )
        )
        as_it_is = is_plain(format_, encoding)
        file = DataFile(path=received.path if as_it_is else plain, format=plain_format(format_), split=split)
        try:
            with resources.work.begin() as session:
                dataset = datasets.add(
                    session,
                    owner_id,
                    filename=received.filename,
                    size=received.size,
                    sha256=received.sha256,
                    file=file,
                    report=Report(**outcome.report or {}),
                    store=resources.store,
                    format_=read_as,
                    plain=None if as_it_is else PlainForm(outcome.bytes, outcome.sha256),
                    findings=findings,
                )
            return dataset, True
        except sa.exc.IntegrityError:
            # The same bytes were uploaded at the same time, and the other upload was quicker.
            if same := _same(resources, owner_id, received, read_as, split):
                return same, False
            raise


def _same(resources: Resources, owner_id: str, received: Received, read_as: str, split: Split) -> Dataset | None:
    with resources.work.reading() as session:
        found = datasets.find_same(session, owner_id, sha256=received.sha256, format_=read_as, split=split)
        if found:
            session.expunge(found)
        return found
