"""What one owner and one job may take of this server: each limit a setting, and an error that names it."""

import sqlalchemy as sa
from sqlmodel import Session, col, select

from core.errors import Conflict, Fault, InvalidInput, TooLarge
from core.job_spec import JobSpec
from core.job_states import LIVE
from core.models import Checkpoint, Dataset, Job, Owner, Tokenizer, Upload
from core.settings import Settings


def check_spec(spec: JobSpec, limits: Settings) -> None:
    """Raise InvalidInput, with every field that is over one, where a job is over the limits of this server."""
    asked = {
        ("sequence", "max_length"): (spec.sequence.max_length, limits.max_sequence_length, "max_sequence_length"),
        ("training", "batch_size"): (spec.training.batch_size, limits.max_batch_size, "max_batch_size"),
        ("training", "epochs"): (spec.training.epochs, limits.max_epochs, "max_epochs"),
        ("tags",): (len(spec.tags), limits.max_tags, "max_tags"),
    }
    over = [
        (".".join(place), Fault(place, f"{value:,} is over this server's limit of {limit:,} (EPOCHD_{name.upper()})"))
        for place, (value, limit, name) in asked.items()
        if value > limit
    ]
    if over:
        sentence = "; ".join(f"{place}: {fault.msg}" for place, fault in over)
        raise InvalidInput(f"The job is larger than this server allows. {sentence}.", [fault for _, fault in over])


def require_place(session: Session, owner_id: str, limits: Settings) -> None:
    """Raise Conflict where the owner has as many jobs that have not ended as one owner may have."""
    lock(session, owner_id)
    alive = (col(Job.owner_id) == owner_id, col(Job.status).in_(LIVE))
    count = session.exec(select(sa.func.count()).select_from(Job).where(*alive)).one()
    if count >= limits.max_live_jobs:
        raise Conflict(
            f"{count:,} of your jobs have not ended, as many as this server allows one owner (EPOCHD_MAX_LIVE_JOBS). "
            "Wait for one, or cancel one."
        )


def require_room(session: Session, owner_id: str, size: int, limits: Settings, *, announced: bool = False) -> None:
    """Raise TooLarge where `size` more bytes would be more than one owner may keep here.

    What is on its way counts for what is `announced`, and not for what has come: that was announced before.
    """
    lock(session, owner_id)
    used = _kept(session, owner_id) + (_on_its_way(session, owner_id) if announced else 0)
    if used + size > limits.max_storage_bytes:
        raise TooLarge(
            f"Your datasets, tokenizers and checkpoints take {used:,} bytes, and this would be {size:,} more: this "
            f"server keeps {limits.max_storage_bytes:,} bytes for one owner (EPOCHD_MAX_STORAGE_BYTES). Delete what "
            "you do not need."
        )


def lock(session: Session, owner_id: str) -> None:
    """Let nobody else count this owner's things until the transaction ends: of two that fit alone one is refused."""
    session.exec(select(Owner.id).where(col(Owner.id) == owner_id).with_for_update(key_share=True)).one()


def _kept(session: Session, owner_id: str) -> int:
    plain = sa.func.coalesce(col(Dataset.plain_bytes), col(Dataset.bytes))
    mine = (
        select(sa.func.sum(plain)).where(col(Dataset.owner_id) == owner_id, col(Dataset.deleted_at).is_(None)),
        select(sa.func.sum(col(Tokenizer.bytes))).where(
            col(Tokenizer.owner_id) == owner_id, col(Tokenizer.deleted_at).is_(None)
        ),
        select(sa.func.sum(col(Checkpoint.bytes)))
        .join(Job, col(Job.id) == col(Checkpoint.job_id))
        .where(col(Job.owner_id) == owner_id, col(Job.deleted_at).is_(None)),
    )
    return sum(int(session.exec(query).one() or 0) for query in mine)


def _on_its_way(session: Session, owner_id: str) -> int:
    query = select(sa.func.sum(col(Upload.bytes)))
    return int(session.exec(query.where(col(Upload.owner_id) == owner_id, col(Upload.dataset_id).is_(None))).one() or 0)
