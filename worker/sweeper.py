"""What is in the store and nobody can name any more: left behind by crashes, or of deleted jobs.

Nothing that is listed is touched, nor what may still be; nor anything of a job that the database does not know, for it
may be an older copy of it that was restored.
"""

import re

import structlog

from core import checkpoints, datasets, deletion, refusals, tokenizers, uploads
from core.jobs import Claim
from core.models import Job, Upload
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork

_log = structlog.get_logger()

_PLACE = re.compile(r"(\d+)-(\d+)")


def remove_deleted_jobs(work: UnitOfWork, store: Store) -> None:
    """Remove the files, then the rows of the jobs that clients have deleted. Raises one of OUTAGES; safe to repeat."""
    with work.reading() as session:
        deleted = deletion.deleted_jobs(session)
    for job_id in deleted:
        store.delete(checkpoints.folder_key(job_id))
        done = False
        while not done:
            with work.begin() as session:
                done = deletion.take_away(session, job_id)
        _log.info("deleted_job_removed", job=job_id)


def sweep(work: UnitOfWork, store: Store, settings: Settings) -> None:
    """Delete what writers that are gone left behind: unfinished files, uploads that nobody goes on with, checkpoints
    that were never listed or are no longer, the last of deleted datasets and tokenizers, and old refusals.

    Raises one of OUTAGES; safe to repeat, and at any number of places at once.
    """
    _sweep_uploads(work, store, settings.upload_keep_seconds)
    _sweep_datasets(work, store)
    _sweep_tokenizers(work, store)
    for key in refusals.expired(store, settings.upload_keep_seconds):
        store.delete(key)
    for name in store.sweep():
        _log.info("unfinished_file_swept", name=name)
    for job_id in store.names("checkpoints"):
        _sweep_checkpoints(job_id, work, store)


def _sweep_uploads(work: UnitOfWork, store: Store, keep_seconds: float) -> None:
    with work.reading() as session:
        # One request may take longer than this: what it writes is younger than its row says.
        expired = [name for name in uploads.expired(session, keep_seconds) if _is_idle(store, name, keep_seconds)]
    for upload_id in expired:
        with work.begin() as session:
            uploads.forget(session, upload_id)
        store.delete(uploads.store_key(upload_id))
        _log.info("upload_expired", upload=upload_id)
    for upload_id in store.names("uploads"):
        with work.reading() as session:
            known = session.get(Upload, upload_id) is not None
        if not known and _is_idle(store, upload_id, keep_seconds):
            store.delete(uploads.store_key(upload_id))


def _is_idle(store: Store, upload_id: str, keep_seconds: float) -> bool:
    return store.idle_seconds(uploads.store_key(upload_id)) > keep_seconds


def _sweep_datasets(work: UnitOfWork, store: Store) -> None:
    with work.reading() as session:
        deleted = datasets.deleted(session)
    for dataset_id in deleted:
        for key in (datasets.store_key(dataset_id), datasets.report_key(dataset_id)):
            store.delete(key)
        with work.begin() as session:
            datasets.take_away(session, dataset_id)


def _sweep_tokenizers(work: UnitOfWork, store: Store) -> None:
    with work.reading() as session:
        deleted = tokenizers.deleted(session)
    for tokenizer_id in deleted:
        store.delete(tokenizers.store_key(tokenizer_id))
        with work.begin() as session:
            tokenizers.take_away(session, tokenizer_id)


def clear_fence(claim: Claim, store: Store) -> None:
    """Delete what lies under the fence of a claim that has not saved anything yet: it would be in the way.

    A database restored from a backup counts its fences anew from there, and the store may have gone on. Nothing of it
    can be listed: only a fence's holder lists what lies under it, and this one has just begun.
    """
    folder = checkpoints.folder_key(claim.job_id)
    for name in store.names(folder):
        if (place := _PLACE.fullmatch(name)) and int(place[1]) == claim.fence:
            store.delete(f"{folder}/{name}")
            _log.warning("checkpoint_of_unknown_past_removed", key=f"{folder}/{name}")


def _sweep_checkpoints(job_id: str, work: UnitOfWork, store: Store) -> None:
    found = store.names(checkpoints.folder_key(job_id))
    # Only now: what is listed after this was not there to be found before.
    with work.reading() as session:
        job = session.get(Job, job_id)
        listed = {checkpoints.store_key(row): row for row in checkpoints.all_of(session, job_id)}
    if job is None:
        return
    for name in found:
        key = f"{checkpoints.folder_key(job_id)}/{name}"
        row, place = listed.get(key), _PLACE.fullmatch(name)
        if row is not None and not row.state_files:
            store.delete(f"{key}/state")
        elif row is None and place and int(place[1]) < job.fence:
            # Only the holder of a fence lists what was saved under it, and this one holds nothing any more.
            store.delete(key)
            _log.info("unlisted_checkpoint_swept", key=key)
