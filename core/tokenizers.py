"""The tokenizers of an owner: rows that point at checked files in the store."""

import hashlib
from pathlib import Path

from sqlmodel import Session, col, delete, select

from core.disk import sync
from core.errors import Conflict, Corrupt, NotFound
from core.ids import new_id
from core.job_states import TERMINAL
from core.models import Job, Tokenizer, utc_now
from core.ownership import Seer, seen_by, sees
from core.store import Store
from core.tokenizer_files import Checked


def store_key(tokenizer_id: str) -> str:
    """Return where a tokenizer's file lies."""
    return f"tokenizers/{tokenizer_id}"


def find_same(session: Session, owner_id: str, *, sha256: str, end_of_text: str | None) -> Tokenizer | None:
    """Return this owner's tokenizer of the same bytes, if there is one. Raises Conflict where another token ends its
    texts than the one that is asked for now.
    """
    same = select(Tokenizer).where(col(Tokenizer.owner_id) == owner_id, col(Tokenizer.sha256) == sha256)
    found = session.exec(same).one_or_none()
    if found and end_of_text not in (None, found.end_of_text):
        raise Conflict(
            f"This file is here as {found.id}, and {found.end_of_text!r} ends its texts. Delete that one first to "
            "upload it with another end of text."
        )
    return found


def add(
    session: Session,
    owner_id: str,
    *,
    filename: str,
    size: int,
    sha256: str,
    checked: Checked,
    file: Path,
    store: Store,
) -> Tokenizer:
    """Register a checked tokenizer and move the file that the trainer reads into the store.

    The move happens inside the transaction: a row without its file cannot be committed.
    """
    tokenizer = Tokenizer(
        id=new_id("tok"),
        owner_id=owner_id,
        filename=filename,
        format=checked.format,
        bytes=size,
        sha256=sha256,
        vocab_size=checked.vocab_size,
        end_of_text=checked.end_of_text,
        lossless=checked.lossless,
        content_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    session.add(tokenizer)
    session.flush()
    sync(file)
    store.adopt(file, store_key(tokenizer.id))
    return tokenizer


def get(session: Session, seer: Seer, tokenizer_id: str) -> Tokenizer:
    """Return a tokenizer that the seer sees. Raises NotFound, for another's as for none."""
    tokenizer = session.get(Tokenizer, tokenizer_id)
    if tokenizer is None or not sees(seer, tokenizer) or tokenizer.deleted_at is not None:
        raise NotFound(f"There is no tokenizer {tokenizer_id}. `GET /tokenizers` lists yours.")
    return tokenizer


def lock(session: Session, tokenizer_id: str) -> Tokenizer | None:
    """Return a tokenizer, which is not deleted before the transaction ends; None where it is gone."""
    there = (col(Tokenizer.id) == tokenizer_id) & col(Tokenizer.deleted_at).is_(None)
    query = select(Tokenizer).where(there).with_for_update()
    return session.exec(query.execution_options(populate_existing=True)).one_or_none()


def page(session: Session, seer: Seer, *, limit: int, before: str | None) -> list[Tokenizer]:
    """Return up to `limit` tokenizers older than the id `before`, newest first."""
    seen = select(Tokenizer).where(seen_by(seer, col(Tokenizer.owner_id)), col(Tokenizer.deleted_at).is_(None))
    query = seen.order_by(col(Tokenizer.id).desc()).limit(limit)
    return list(session.exec(query.where(col(Tokenizer.id) < before) if before else query))


def remove(session: Session, seer: Seer, tokenizer_id: str) -> None:
    """Delete a tokenizer: for clients at once, and its file as soon as somebody takes that away.

    Raises NotFound, or Conflict while a live job needs it. The checkpoints of jobs that have ended hold it themselves.
    """
    get(session, seer, tokenizer_id)
    found = lock(session, tokenizer_id)
    if found is None:
        raise NotFound(f"There is no tokenizer {tokenizer_id}. `GET /tokenizers` lists yours.")
    live = select(Job.id).where(col(Job.tokenizer_id) == tokenizer_id, col(Job.status).not_in(TERMINAL))
    if jobs := list(session.exec(live.order_by(Job.id).limit(3))):
        raise Conflict(f"{', '.join(jobs)} needs {tokenizer_id}: cancel it, or delete the tokenizer when it has ended.")
    found.deleted_at = utc_now()
    # The same bytes can come again, as a tokenizer of their own.
    found.sha256 = f"deleted {found.id}"
    session.add(found)


def deleted(session: Session) -> list[str]:
    """Return the ids of the tokenizers that were deleted and still have a row."""
    return list(session.exec(select(Tokenizer.id).where(col(Tokenizer.deleted_at).is_not(None))))


def take_away(session: Session, tokenizer_id: str) -> None:
    """Delete the row of a deleted tokenizer."""
    gone = col(Tokenizer.deleted_at).is_not(None)
    session.exec(delete(Tokenizer).where(col(Tokenizer.id) == tokenizer_id, gone))


def file_of(tokenizer: Tokenizer, store: Store) -> Path:
    """Return the file that the trainer reads. Raises Corrupt where it is gone or damaged."""
    path = store.fetch(store_key(tokenizer.id))
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != tokenizer.content_sha256:
            raise Corrupt(f"The file of the tokenizer {tokenizer.id} is damaged")
    return path
