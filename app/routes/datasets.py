"""Datasets: upload, list, read, delete."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool

from app.dataset_schemas import DatasetBody, DatasetPage
from app.dependencies import DatasetId, Paging, Reader, RefusalId, TheResources, TheStore, Work, Writer
from app.keeping import Reading, keep
from app.looking import EarlyLook
from app.openapi import file_request, leads_to, problems
from app.ranged_response import FileSegment, RangedResponse, Segment
from app.upload import receive
from core import datasets, refusals
from core.dataset_files import Split
from core.errors import Corrupt

router = APIRouter(tags=["datasets"])

_LINKS = {
    **leads_to("dataset", in_body_of="create_job")["links"],
    **leads_to("dataset_id", "get_dataset", "preview_dataset", "download_dataset_report", "delete_dataset")["links"],
}


_CREATE: dict[str, Any] = {
    "status_code": 201,
    "responses": {
        201: {"links": _LINKS},
        200: {"model": DatasetBody, "description": "These bytes were here already."},
        **problems(408, 413, 507),
    },
    "openapi_extra": file_request("The first document.\n\nThe second one, in two lines:\nthis is the other.\n"),
}


@router.put(
    "/datasets", operation_id="put_dataset", summary="Upload a dataset, as `curl -T` does: the same as POST", **_CREATE
)
@router.post(
    "/datasets",
    operation_id="create_dataset",
    summary="Upload a dataset: a form with `file`, or the raw file with `?filename=`",
    **_CREATE,
)
async def create(
    request: Request,
    response: Response,
    caller: Writer,
    resources: TheResources,
    *,
    filename: Annotated[
        str | None, Query(description="The file's name, where it is not in a form.", examples=["corpus.txt"])
    ] = None,
    split: Annotated[Split | None, Query(description="What a row of a .txt is; blank_line by default.")] = None,
    encoding: Annotated[
        str | None, Query(max_length=40, description="How a text is written, where it is not UTF-8: gb18030, say.")
    ] = None,
) -> DatasetBody:
    """Receive a file, look through it as it comes, and keep it if it can be used. PUT is what `curl -T` sends."""
    reading = Reading(split=split, encoding=encoding or None)
    order = partial(reading.order, settings=resources.settings)
    async with (
        contextmanager_in_threadpool(resources.store.incoming()) as folder,
        EarlyLook(resources, caller.owner_id, order) as early,
    ):
        folder.mkdir()
        received = await receive(request, folder / "upload", filename, grown=early.grown)
        dataset, new = await keep(resources, caller.owner_id, received, reading, early)
    if not new:
        response.status_code = 200
    return DatasetBody.of(dataset)


@router.get("/datasets", operation_id="list_datasets", summary="List datasets, newest first", responses=problems())
def list_(caller: Reader, work: Work, paging: Paging) -> DatasetPage:
    """Return the caller's datasets."""
    with work.reading() as session:
        found = datasets.page(session, caller.sees, limit=paging.limit + 1, before=paging.before)
        return DatasetPage.of(found, paging.limit)


@router.get("/datasets/{dataset_id}", operation_id="get_dataset", summary="Read a dataset", responses=problems(404))
def read(caller: Reader, work: Work, dataset_id: DatasetId) -> DatasetBody:
    """Return one of the caller's datasets."""
    with work.reading() as session:
        return DatasetBody.of(datasets.get(session, caller.sees, dataset_id))


@router.get(
    "/datasets/{dataset_id}/report",
    operation_id="download_dataset_report",
    summary="Download all that was found in a dataset, one JSON object a line",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}, **problems(404)},
)
def report(caller: Reader, work: Work, store: TheStore, dataset_id: DatasetId) -> Response:
    """Return every warning, such as a row that is skipped, with its line; the dataset itself has the first 20."""
    with work.reading() as session:
        datasets.get(session, caller.sees, dataset_id)
    try:
        path: Path | None = store.fetch(datasets.report_key(dataset_id))
    except Corrupt:
        path = None
    return _findings(path, dataset_id)


@router.get(
    "/refusals/{refusal_id}",
    operation_id="download_refusal",
    summary="Download all that was found in a file that was refused, one JSON object a line",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}, **problems(404)},
)
def refusal(caller: Reader, store: TheStore, refusal_id: RefusalId) -> Response:
    """Return every fault with its line, and every row that would be skipped. It is kept for a day."""
    return _findings(refusals.get(store, caller.sees, refusal_id), refusal_id)


@router.delete(
    "/datasets/{dataset_id}",
    status_code=204,
    operation_id="delete_dataset",
    summary="Delete a dataset that no live job needs",
    responses=problems(404, 409),
)
def delete(caller: Writer, work: Work, store: TheStore, dataset_id: DatasetId) -> None:
    """Delete a dataset and its file. Jobs that have ended keep what they made of it, but cannot be retried."""
    with work.begin() as session:
        datasets.remove(session, caller.sees, dataset_id)
    # Should this process die here, a worker does it.
    for key in (datasets.store_key(dataset_id), datasets.report_key(dataset_id)):
        store.delete(key)


def _findings(path: Path | None, id_: str) -> Response:
    found: list[Segment] = []
    with suppress(FileNotFoundError):
        if path:
            found.append(FileSegment(path, path.stat().st_size))
    return RangedResponse(
        found,
        sha256=id_,  # as what it is about, it never changes
        media_type="application/x-ndjson",
        filename=f"{id_}-report.jsonl",
        immutable=False,
    )
