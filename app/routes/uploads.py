"""Uploads that may be interrupted: announce a file, send it in as many requests as it takes, complete it."""

import hashlib
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool

from app.dataset_schemas import DatasetBody, UploadBody
from app.dependencies import Reader, TheResources, UploadId, Writer
from app.json_body import AnnouncementBody
from app.keeping import Reading, keep
from app.openapi import BINARY_REQUEST, json_request, leads_to, problems
from app.resources import Resources
from app.upload import Received, append_body, plain_name
from core import datasets, uploads
from core.errors import Corrupt, InvalidInput, NotFound
from core.models import Dataset, Upload
from core.ownership import Seer
from core.upload_formats import encoding_of, format_of

router = APIRouter(tags=["datasets"])

EXAMPLE = {"filename": "corpus.txt", "bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}

_OFFSET = {"headers": {"Upload-Offset": {"schema": {"type": "integer"}}}}
Offset = Annotated[
    int, Header(alias="Upload-Offset", ge=0, lt=2**63, description="How many bytes of the file come before these.")
]


@router.post(
    "/uploads",
    status_code=201,
    operation_id="create_upload",
    summary="Announce a file; the same once more gives the upload that is under way",
    responses={
        201: {
            "headers": {"Location": {"schema": {"type": "string"}}},
            **leads_to("upload_id", "get_upload", "append_to_upload", "complete_upload", "delete_upload"),
        },
        200: {"model": UploadBody, "description": "It is under way, or complete."},
        **problems(408, 409, 413, 415),
    },
    openapi_extra=json_request("Announcement", text=EXAMPLE),
)
def create(response: Response, caller: Writer, resources: TheResources, what: AnnouncementBody) -> UploadBody:
    """Note what is to come."""
    encoding_of(what.encoding, format_of(plain_name(what.filename)))
    try:
        upload, new = _announced(resources, caller.owner_id, what)
    except sa.exc.IntegrityError:
        # The same was announced at the same time, and the other was quicker.
        upload, new = _announced(resources, caller.owner_id, what)
    response.headers["Location"] = f"/uploads/{upload.id}"
    response.status_code = 201 if new else 200
    return _body(resources, upload, response)


@router.head("/uploads/{upload_id}", include_in_schema=False)
@router.get(
    "/uploads/{upload_id}",
    operation_id="get_upload",
    summary="Read how much of an upload is here",
    responses={200: _OFFSET, **problems(404)},
)
def read(response: Response, caller: Reader, resources: TheResources, upload_id: UploadId) -> UploadBody:
    """Return an upload; HEAD gives its headers alone."""
    return _body(resources, _found(resources, caller.sees, upload_id), response)


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    operation_id="append_to_upload",
    summary="Send the bytes that follow those that are here",
    responses={204: _OFFSET, **problems(404, 408, 409, 413, 507)},
    openapi_extra=BINARY_REQUEST,
)
async def append(
    request: Request,
    response: Response,
    caller: Writer,
    resources: TheResources,
    *,
    upload_id: UploadId,
    offset: Offset,
) -> None:
    """Write the body behind what is here. What has come is kept when the connection breaks."""
    upload = await run_in_threadpool(_gone_on_with, resources, caller.sees, upload_id, offset)
    key = uploads.store_key(upload.id)
    try:
        await append_body(request, resources.store, key, offset=offset, end=upload.bytes)
    except Corrupt as error:
        raise _gone(upload_id) from error
    response.headers["Upload-Offset"] = str(await run_in_threadpool(resources.store.length, key))


@router.post(
    "/uploads/{upload_id}/complete",
    status_code=201,
    operation_id="complete_upload",
    summary="Make a dataset of an upload that is here as a whole",
    responses={
        200: {"model": DatasetBody, "description": "These bytes were here already."},
        **problems(404, 409, 413, 507),
    },
)
async def complete(response: Response, caller: Writer, resources: TheResources, *, upload_id: UploadId) -> DatasetBody:
    """Check the hash, look through the file, and keep it. Where the answer is lost it can be asked for again."""
    upload = await run_in_threadpool(_found, resources, caller.sees, upload_id)
    if upload.dataset_id:
        dataset, new = await run_in_threadpool(_made, resources, caller.sees, upload.dataset_id), False
    else:
        dataset, new = await _completed(resources, upload)
    if not new:
        response.status_code = 200
    return DatasetBody.of(dataset)


@router.delete(
    "/uploads/{upload_id}",
    status_code=204,
    operation_id="delete_upload",
    summary="Give an upload up",
    responses=problems(404),
)
def delete(caller: Writer, resources: TheResources, upload_id: UploadId) -> None:
    """Delete what has come of an upload."""
    _drop(resources, _found(resources, caller.sees, upload_id))


def _announced(resources: Resources, owner_id: str, what: uploads.Announcement) -> tuple[Upload, bool]:
    with resources.work.begin() as session:
        upload, new = uploads.announce(session, owner_id, what, resources.settings)
    if new:
        resources.store.grow(uploads.store_key(upload.id))
    return upload, new


def _found(resources: Resources, seer: Seer, upload_id: str) -> Upload:
    with resources.work.reading() as session:
        upload = uploads.get(session, seer, upload_id)
        session.expunge(upload)
        return upload


def _gone_on_with(resources: Resources, seer: Seer, upload_id: str, offset: int) -> Upload:
    key = uploads.store_key(upload_id)
    with resources.work.begin() as session:
        upload = uploads.get(session, seer, upload_id)
        uploads.require_offset(upload, offset, resources.store.length(key))
        uploads.touch(session, upload)
    resources.store.grow(key)
    return upload


async def _completed(resources: Resources, upload: Upload) -> tuple[Dataset, bool]:
    async with contextmanager_in_threadpool(resources.store.incoming()) as folder:
        folder.mkdir()
        try:
            received = await run_in_threadpool(_whole, resources, upload, folder / "upload")
            dataset, new = await keep(resources, upload.owner_id, received, Reading.model_validate(upload))
        except InvalidInput:
            # Sent again it would be refused again.
            await run_in_threadpool(_drop, resources, upload)
            raise
    await run_in_threadpool(_noted, resources, upload, dataset.id)
    return dataset, new


def _whole(resources: Resources, upload: Upload, path: Path) -> Received:
    """Give what has come a second name, `path`, and return it, if it is what was announced."""
    key = uploads.store_key(upload.id)
    uploads.require_whole(upload, resources.store.length(key))
    try:
        resources.store.link(key, path)
    except Corrupt as error:
        raise _gone(upload.id) from error
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    uploads.require_sound(upload, sha256)
    return Received(path, plain_name(upload.filename), upload.bytes, sha256)


def _noted(resources: Resources, upload: Upload, dataset_id: str) -> None:
    """Remember what became of an upload, for whoever asks again, and delete what had come of it."""
    with resources.work.begin() as session:
        uploads.became(session, upload.id, dataset_id)
    resources.store.delete(uploads.store_key(upload.id))


def _made(resources: Resources, seer: Seer, dataset_id: str) -> Dataset:
    with resources.work.reading() as session:
        dataset = datasets.get(session, seer, dataset_id)
        session.expunge(dataset)
        return dataset


def _drop(resources: Resources, upload: Upload) -> None:
    with resources.work.begin() as session:
        uploads.forget(session, upload.id)
    resources.store.delete(uploads.store_key(upload.id))


def _gone(upload_id: str) -> NotFound:
    return NotFound(f"There is no upload {upload_id} any more. `POST /uploads` begins one.")


def _body(resources: Resources, upload: Upload, response: Response) -> UploadBody:
    there = upload.bytes if upload.dataset_id else resources.store.length(uploads.store_key(upload.id))
    response.headers.update(
        {"Upload-Offset": str(there), "Upload-Length": str(upload.bytes), "Cache-Control": "no-store"}
    )
    return UploadBody(
        id=upload.id,
        filename=upload.filename,
        bytes=upload.bytes,
        sha256=upload.sha256,
        offset=there,
        dataset=upload.dataset_id,
        expires_at=uploads.expires_at(upload, resources.settings),
    )
