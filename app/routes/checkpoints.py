"""A job's checkpoints: the list, and their files one by one, as an archive, and as a manifest."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from starlette.responses import PlainTextResponse

from app.dependencies import JobId, Reader, TheStore, Work
from app.openapi import problems
from app.ranged_response import FILES_GONE, FileSegment, RangedResponse, Segment
from app.schemas import CheckpointBody, CheckpointList
from app.tar_stream import tar_segments
from core import checkpoints, job_queries
from core.checkpoint_files import MANIFEST, FileEntry, manifest_text
from core.errors import Corrupt, NotFound
from core.models import Checkpoint

router = APIRouter(tags=["checkpoints"])


def _downloads(media_type: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"content": content},
        206: {"content": content, "description": "The range."},
        304: {"description": "Unchanged."},
        **problems(404, 416),
    }


_FILE, _ARCHIVE = "application/octet-stream", "application/x-tar"
# Part of an archive's ETag: to be raised whenever the same files are packed differently.
_ARCHIVE_LAYOUT = 1


@dataclass(frozen=True)
class Published:
    """A checkpoint, the folder of the files that clients download, and whether it was named by its content."""

    row: Checkpoint
    folder: Path
    pinned: bool

    @property
    def files(self) -> list[FileEntry]:
        """The files, hashed when they were published."""
        return [FileEntry(name=file["name"], bytes=file["bytes"], sha256=file["sha256"]) for file in self.row.files]

    def segment(self, file: FileEntry) -> FileSegment:
        """Return a file's content."""
        return FileSegment(self.folder / file["name"], file["bytes"])


def _published(
    caller: Reader,
    work: Work,
    store: TheStore,
    job_id: JobId,
    epoch: str,
    *,
    manifest: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Only the one of this manifest.")
    ] = None,
) -> Published:
    with work.reading() as session:
        job_queries.get(session, caller.sees, job_id)
        row = checkpoints.find(session, job_id, _epoch(epoch), manifest)
        session.expunge(row)
    try:
        return Published(row, store.fetch(checkpoints.store_key(row)) / "model", pinned=manifest is not None)
    except Corrupt as error:
        raise NotFound(FILES_GONE) from error


def _epoch(text: str) -> int | Literal["latest", "best"]:
    match text:
        case "latest":
            return "latest"
        case "best":
            return "best"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise NotFound("A checkpoint is named by its epoch's number, `latest` or `best`.")
    return int(text)


ThePublished = Annotated[Published, Depends(_published)]


@router.get(
    "/jobs/{job_id}/checkpoints",
    operation_id="list_checkpoints",
    summary="List a job's checkpoints, newest first",
    responses=problems(404),
)
def list_(caller: Reader, work: Work, job_id: JobId) -> CheckpointList:
    """Return the checkpoints that are there to download."""
    with work.reading() as session:
        job_queries.get(session, caller.sees, job_id)
        return CheckpointList(data=[CheckpointBody.of(row) for row in checkpoints.all_of(session, job_id)])


@router.head("/jobs/{job_id}/checkpoints/{epoch}/files/{name}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/checkpoints/{epoch}/files/{name}",
    operation_id="download_checkpoint_file",
    summary="Download one file of a checkpoint, or a range of it",
    response_class=Response,
    responses=_downloads(_FILE),
)
def file(published: ThePublished, name: str) -> Response:
    """Return a file that the checkpoint lists; no other name reaches the disk."""
    for listed in published.files:
        if listed["name"] == name:
            return RangedResponse(
                [published.segment(listed)],
                sha256=listed["sha256"],
                media_type=_FILE,
                filename=name,
                immutable=published.pinned,
            )
    raise NotFound(f"The checkpoint has no file {name!r}. `GET /jobs/{published.row.job_id}/checkpoints` lists them.")


@router.head("/jobs/{job_id}/checkpoints/{epoch}/archive", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/checkpoints/{epoch}/archive",
    operation_id="download_checkpoint_archive",
    summary="Download a checkpoint as a .tar, or a range of it",
    response_class=Response,
    responses=_downloads(_ARCHIVE),
)
def archive(published: ThePublished) -> Response:
    """Return the files in a folder, with the manifest that checks them."""
    row = published.row
    folder = f"{row.job_id}-epoch-{row.epoch}"
    mtime = int(row.created_at.timestamp())
    contents: list[tuple[str, Segment]] = [(file["name"], published.segment(file)) for file in published.files]
    contents.append((MANIFEST, manifest_text(published.files).encode()))
    identity = f"{_ARCHIVE_LAYOUT} {folder} {mtime} {row.manifest_sha256}"
    return RangedResponse(
        tar_segments(folder, contents, mtime),
        sha256=hashlib.sha256(identity.encode()).hexdigest(),
        media_type=_ARCHIVE,
        filename=f"{folder}.tar",
        immutable=published.pinned,
    )


@router.get(
    "/jobs/{job_id}/checkpoints/{epoch}/manifest",
    operation_id="get_checkpoint_manifest",
    summary="Read the hashes of a checkpoint's files, as `sha256sum -c` checks them",
    response_class=PlainTextResponse,
    responses=problems(404),
)
def manifest(published: ThePublished) -> str:
    """Return one line for each file."""
    return manifest_text(published.files)
