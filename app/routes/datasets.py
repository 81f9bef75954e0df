"""Datasets: upload, list, read."""

from typing import Annotated

import anyio.to_thread
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool

from app.dependencies import DatasetId, Paging, Reader, TheResources, Work, Writer
from app.openapi import problems
from app.resources import Resources
from app.schemas import DatasetBody, DatasetPage
from app.upload import Received, receive
from core import dataset_files, datasets
from core.dataset_files import DataFile, Split
from core.errors import InvalidInput
from core.models import Dataset

router = APIRouter(tags=["datasets"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _FORM, "application/octet-stream": _BINARY},
    }
}


@router.post(
    "/datasets",
    status_code=201,
    operation_id="create_dataset",
    summary="Upload a dataset: a form with `file`, or the raw file with `?filename=`",
    responses={200: {"model": DatasetBody, "description": "These bytes were here already."}, **problems(413, 507)},
    openapi_extra=_UPLOAD,
)
async def create(
    request: Request,
    response: Response,
    caller: Writer,
    resources: TheResources,
    *,
    filename: Annotated[str | None, Query(description="The file's name, where it is not in a form.")] = None,
    split: Annotated[Split | None, Query(description="What a row of a .txt is; blank_line by default.")] = None,
) -> DatasetBody:
    """Receive a file, look through it, and keep it where every row can be used."""
    async with contextmanager_in_threadpool(resources.store.incoming()) as path:
        received = await receive(request, path, filename)
        dataset, new = await anyio.to_thread.run_sync(
            _keep, resources, caller.owner_id, received, split, limiter=resources.inspections
        )
    if not new:
        response.status_code = 200
    return DatasetBody.model_validate(dataset)


@router.get("/datasets", operation_id="list_datasets", summary="List datasets, newest first", responses=problems())
def list_(caller: Reader, work: Work, paging: Paging) -> DatasetPage:
    """Return the caller's datasets."""
    with work.reading() as session:
        found = datasets.page(session, caller.owner_id, limit=paging.limit + 1, before=paging.before)
        return DatasetPage.of(found, paging.limit)


@router.get("/datasets/{dataset_id}", operation_id="get_dataset", summary="Read a dataset", responses=problems(404))
def read(caller: Reader, work: Work, dataset_id: DatasetId) -> DatasetBody:
    """Return one of the caller's datasets."""
    with work.reading() as session:
        return DatasetBody.model_validate(datasets.get(session, caller.owner_id, dataset_id))


def _keep(resources: Resources, owner_id: str, received: Received, split: Split | None) -> tuple[Dataset, bool]:
    """Return the dataset of a received file, and whether it is new."""
    format_ = dataset_files.format_of(received.filename)
    if split and format_ != "txt":
        raise InvalidInput.at(("query", "split"), "split says what a row of a .txt is: leave it out for other formats.")
    file = DataFile(path=received.path, format=format_, split=split or "blank_line")
    if same := _same(resources, owner_id, received, file):
        return same, False
    report = dataset_files.inspect(file)
    try:
        with resources.work.begin() as session:
            dataset = datasets.add(
                session,
                owner_id,
                filename=received.filename,
                size=received.size,
                sha256=received.sha256,
                file=file,
                report=report,
                store=resources.store,
            )
        return dataset, True
    except sa.exc.IntegrityError:
        # The same bytes were uploaded at the same time, and the other upload was quicker.
        if same := _same(resources, owner_id, received, file):
            return same, False
        raise


def _same(resources: Resources, owner_id: str, received: Received, file: DataFile) -> Dataset | None:
    with resources.work.reading() as session:
        found = datasets.find_same(session, owner_id, sha256=received.sha256, file=file)
        if found:
            session.expunge(found)
        return found
