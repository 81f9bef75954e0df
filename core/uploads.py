"""Files on their way: announced once, sent in as many requests as it takes, and forgotten when nobody goes on."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, delete, select, update

from core import datasets, limits
from core.database import database_now
from core.dataset_files import Split
from core.errors import Conflict, InvalidInput, NotFound, TooLarge
from core.ids import new_id
from core.models import Upload
from core.ownership import Seer, sees
from core.settings import Settings
from core.strict import ShortText, Strict


class Announcement(Strict):
    """What is to come: the file's name, size and hash, and how it is to be read (as `POST /datasets` takes it)."""

    filename: ShortText
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    split: Split | None = None
    encoding: ShortText | None = None

    @property
    def identity(self) -> str:
        """Return the hash of all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def store_key(upload_id: str) -> str:
    """Return where lies what has come of an upload."""
    return f"uploads/{upload_id}"


def announce(session: Session, owner_id: str, what: Announcement, settings: Settings) -> tuple[Upload, bool]:
    """Return the upload to go on with, and whether it is new: who announces the same again goes on where it stopped.

    Raises TooLarge for a file over a limit, Conflict where this owner has too many under way.
    """
    if what.bytes > settings.max_upload_bytes:
        limit = f"{settings.max_upload_bytes:,} bytes (EPOCHD_MAX_UPLOAD_BYTES)"
        raise TooLarge(f"The file has {what.bytes:,} bytes, and this server takes {limit}.")
    mine = select(Upload).where(col(Upload.owner_id) == owner_id)
    earlier = session.exec(mine.where(col(Upload.request_sha256) == what.identity)).one_or_none()
    if earlier and earlier.dataset_id and not datasets.is_there(session, earlier.dataset_id):
        forget(session, earlier.id)  # what became of it was deleted since
    elif earlier:
        touch(session, earlier)
        return earlier, False
    under_way = session.exec(mine.where(col(Upload.dataset_id).is_(None)).order_by(col(Upload.id))).all()
    if len(under_way) >= settings.max_open_uploads:
        raise Conflict(
            f"{len(under_way)} uploads are under way, as many as this server allows one owner "
            "(EPOCHD_MAX_OPEN_UPLOADS). Finish or delete one: "
            f"`DELETE /uploads/{under_way[0].id}` is the oldest."
        )
    limits.require_room(session, owner_id, what.bytes, settings, announced=True)
    upload = Upload(
        id=new_id("up"), owner_id=owner_id, request_sha256=what.identity, touched_at=_now(session), **what.model_dump()
    )
    session.add(upload)
    session.flush()
    return upload, True


def get(session: Session, seer: Seer, upload_id: str) -> Upload:
    """Return an upload that the seer sees. Raises NotFound, for another's as for none."""
    upload = session.get(Upload, upload_id)
    if upload is None or not sees(seer, upload):
        raise NotFound(
            f"There is no upload {upload_id}. `POST /uploads` begins one; what nobody goes on with is deleted."
        )
    return upload


def touch(session: Session, upload: Upload) -> None:
    """Note that somebody goes on with an upload."""
    upload.touched_at = _now(session)
    session.add(upload)


def require_open(upload: Upload) -> None:
    """Raise Conflict where an upload has become a dataset already."""
    if upload.dataset_id:
        raise Conflict(f"The upload is complete: it has become {upload.dataset_id}.")


def require_offset(upload: Upload, offset: int, there: int) -> None:
    """Raise Conflict where more bytes would not follow those that are there."""
    require_open(upload)
    if offset != there:
        raise Conflict(f"{there} bytes of the upload are here: go on with those behind them, not at {offset}.")


def require_whole(upload: Upload, there: int) -> None:
    """Raise Conflict where there are not all bytes yet."""
    if there != upload.bytes:
        raise Conflict(f"{there} of {upload.bytes} bytes are here. Send the rest before you complete the upload.")


def require_sound(upload: Upload, sha256: str) -> None:
    """Raise InvalidInput where the bytes that came are not those that were announced."""
    if sha256 != upload.sha256:
        raise InvalidInput(
            f"The bytes that came have the sha256 {sha256}, and {upload.sha256} was announced: the file changed "
            "meanwhile, or was damaged on its way. What came was deleted: upload it again."
        )


def became(session: Session, upload_id: str, dataset_id: str) -> None:
    """Note what an upload has become."""
    session.exec(update(Upload).where(col(Upload.id) == upload_id).values(dataset_id=dataset_id))


def forget(session: Session, upload_id: str) -> None:
    """Delete the row of an upload."""
    session.exec(delete(Upload).where(col(Upload.id) == upload_id))


def expired(session: Session, keep_seconds: float) -> Sequence[str]:
    """Return the ids of uploads that nobody has gone on with for so long."""
    return session.exec(select(Upload.id).where(col(Upload.touched_at) < database_now(-keep_seconds))).all()


def expires_at(upload: Upload, settings: Settings) -> datetime:
    """Return until when an upload is kept, if nobody goes on with it."""
    return upload.touched_at + timedelta(seconds=settings.upload_keep_seconds)


def _now(session: Session) -> datetime:
    now: datetime = session.execute(sa.select(database_now())).scalar_one()
    return now
